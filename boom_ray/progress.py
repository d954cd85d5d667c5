"""What a person sees while a job runs: one live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from boom_ray.events import Event

LINE_EVERY_S = 5.0  # per unit, when not on a terminal
RATE_WINDOW_S = 30.0
LEAST_SAMPLES = 4  # that a rate is taken over: of units that are heard of less often, those of a longer time
BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
# Of all figures that go to MLflow, those a person wants to see go by, and what they are called then.
SHOWN_FIGURES = {
    "loss": "loss",
    "score": "score",
    "cost_s": "cost (s)",
    "pairs_per_s": "pairs/s",
    "rows": "rows",
    "rows_per_s": "rows/s",
    "mb_per_s": "MB/s",
}


@dataclass
class Unit:
    """What is known about one unit of work.

    Attributes:
        last: its newest event; figures and note are kept from earlier ones where that has none.
        started: when it was first heard of, seconds of the clock.
        changed: when last.
        samples: (time, done) of the last `RATE_WINDOW_S` seconds, and the last `LEAST_SAMPLES` in any case.
        printed: when its last plain line was printed.
    """

    last: Event
    started: float
    changed: float
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    printed: float = float("-inf")

    @property
    def finished(self) -> bool:
        """Whether all of it is done; never when the total is unknown."""
        return 0 < self.last.total <= self.last.done

    def take(self, event: Event, now: float) -> None:
        """Take in an event; a unit that falls back after a restart, or only now starts, measures its rate anew."""
        if event.done < self.last.done or event.total != self.last.total:
            self.samples.clear()
        self.samples.append((now, event.done))
        while self.samples[0][0] < now - RATE_WINDOW_S and len(self.samples) > LEAST_SAMPLES:
            self.samples.popleft()
        figures = {**self.last.figures, **event.figures}
        note = event.note or self.last.note
        self.last = replace(event, figures=figures, note=note)
        self.changed = now

    def elapsed(self, now: float) -> float:
        """Seconds since its start, up to its end."""
        return (self.changed if self.finished else now) - self.started

    def eta(self, now: float) -> float | None:
        """Seconds to its end at the recent rate; None when that is not known."""
        if self.finished or self.last.total <= 0 or len(self.samples) < 2:
            return None
        (begin, first), (end, last) = self.samples[0], self.samples[-1]
        if last <= first or end <= begin:
            return None
        return max(0.0, (self.last.total - last) * (end - begin) / (last - first) - (now - end))


class Progress:
    """Shows events as they come; a context manager and a `boom_ray.events.Report`, callable from any thread.

    Args:
        console: where to; standard output by default. On a terminal one table is redrawn in place, otherwise every unit
            prints a line at its start and end, when it has something to note, and every few seconds.
        clock: seconds, rising.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is shown before the first event."""
        self.console = console or Console()
        self.live: Live | None = None
        self._clock = clock
        self._stages: dict[str, dict[str, Unit]] = {}
        self._current = ""
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        with self._lock:
            line = self._take(event)
        # outside the lock: the thread that redraws the table holds rich's lock while it waits for ours
        if line is not None and self.live is None:
            self.say(line)

    def _take(self, event: Event) -> str | None:
        """Note the event; the plain line to print if one is due."""
        now = self._clock()
        self._current = event.stage
        units = self._stages.setdefault(event.stage, {})
        before = units.get(event.unit)
        unit = units.setdefault(event.unit, Unit(Event(event.stage, event.unit, 0, event.total), now, now))
        was_finished = before is not None and unit.finished
        note = event.note if event.note != unit.last.note else ""
        unit.take(event, now)
        if before is None and event.total == 1 and not (event.done or note):
            return None  # a unit of one step is worth a line when it ends
        is_news = before is None or note or unit.finished != was_finished
        if not is_news and (unit.finished or now - unit.printed < LINE_EVERY_S):
            return None
        unit.printed = now
        return plain_line(unit, now, note)

    def say(self, text: str) -> None:
        """Print lines above the table."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def log_handler(self) -> logging.Handler:
        """A handler that prints log records above the table, where one on standard error would break it."""
        handler = _Handler(self)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        return handler

    def table(self) -> Table:
        """The table as it is now: finished stages on one line, then the units of the others."""
        with self._lock:
            now = self._clock()
            figures = self._columns()
            table = Table(box=None, pad_edge=False, expand=False, header_style="dim")
            for name in ("stage", "unit", "progress", "done"):
                table.add_column(name, no_wrap=True)
            for name in (*figures, "elapsed", "left"):
                table.add_column(SHOWN_FIGURES.get(name, name), justify="right", no_wrap=True)
            table.add_column("note", overflow="ellipsis", no_wrap=True)
            for stage, units in self._stages.items():
                for row in self._rows(stage, units, figures, now):
                    table.add_row(*row)
            return table

    def _columns(self) -> list[str]:
        """Names of the figures of the units that are shown, at most three, the loss first."""
        shown = [unit for stage, units in self._stages.items() if not self._is_over(stage) for unit in units.values()]
        present = {name for unit in shown for name in unit.last.figures}
        return [name for name in SHOWN_FIGURES if name in present][:3]

    def _is_over(self, stage: str) -> bool:
        return stage != self._current and all(unit.finished for unit in self._stages[stage].values())

    def _rows(
        self, stage: str, units: dict[str, Unit], figures: list[str], now: float
    ) -> Iterator[tuple[Text | ProgressBar, ...]]:
        if self._is_over(stage):
            seconds = max(u.changed for u in units.values()) - min(u.started for u in units.values())
            names = next(iter(units)) if len(units) == 1 else f"{len(units)} units"
            blank = [Text()] * len(figures)
            yield (
                Text(stage, "green"),
                Text(names),
                Text("done", "green"),
                Text(),
                *blank,
                _time(seconds),
                Text(),
                Text(),
            )
            return
        shown, finished, hidden = self._choose(list(units.values()))
        label = Text(stage, "bold")
        if finished:
            yield label, Text(f"{finished} finished", "green"), Text()
            label = Text()
        for unit in shown:
            yield label, *_unit_row(unit, figures, now)
            label = Text()
        if hidden:
            yield label, Text(f"{hidden} more", "dim"), Text()

    def _choose(self, units: list[Unit]) -> tuple[list[Unit], int, int]:
        """The units that fit on the screen; how many finished ones and how many others are left out."""
        room = max(6, self.console.height - len(self._stages) - 6)
        if len(units) <= room:
            return units, 0, 0
        working = [unit for unit in units if not unit.finished]
        finished = len(units) - len(working)
        return working[:room], finished, max(0, len(working) - room)


class _Handler(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.say(self.format(record))


def plain_line(unit: Unit, now: float, note: str = "") -> str:
    """One unit as a line of text, e.g. ``members  bag-20  120/400 (30 %)  loss 0.5123  0:42 so far, 1:38 left``."""
    event = unit.last
    share = f" ({100 * event.done / event.total:.0f} %)" if event.total > 0 else ""
    figures = [
        f"{title} {figure(event.figures[name])}" for name, title in SHOWN_FIGURES.items() if name in event.figures
    ]
    elapsed, left = unit.elapsed(now), unit.eta(now)
    times = [f"{clock_text(elapsed)} {'in all' if unit.finished else 'so far'}"] if elapsed >= 1 else []
    times += [f"{clock_text(left)} left"] if left is not None else []
    parts = [event.stage, event.unit, _done(event) + share, *figures, ", ".join(times), note]
    return "  ".join(part for part in parts if part)


def _unit_row(unit: Unit, figures: list[str], now: float) -> tuple[Text | ProgressBar, ...]:
    event, left = unit.last, unit.eta(now)
    total = event.total if event.total > 0 else None
    bar = ProgressBar(total=total, completed=event.done, width=20, pulse=total is None, animation_time=now)
    numbers = [Text(figure(event.figures[name]) if name in event.figures else "") for name in figures]
    rest = Text("" if left is None else clock_text(left))
    return Text(event.unit), bar, Text(_done(event)), *numbers, _time(unit.elapsed(now)), rest, Text(event.note, "dim")


def _done(event: Event) -> str:
    """How much is done of how much, e.g. ``120/400``, ``1.2/3.6 GiB`` or ``1,200/3,600 characters``."""
    known = [event.done, event.total] if event.total > 0 else [event.done]
    if event.measure != "bytes":
        return f"{'/'.join(f'{value:,.0f}' for value in known)} {event.measure}".rstrip()
    return size_text(*known)


def size_text(*sizes: float) -> str:
    """Bytes for people, several in the unit of the largest, e.g. ``2.4 GiB`` or ``1.2/3.6 GiB``."""
    unit, name = next(pair for pair in BYTES if max(sizes) >= pair[0] or pair[0] == 1)
    return f"{'/'.join(f'{size / unit:,.{0 if unit == 1 else 1}f}' for size in sizes)} {name}"


def _time(seconds: float) -> Text:
    return Text(clock_text(seconds))


def clock_text(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def figure(value: float) -> str:
    """A measured number: four decimals below 10, one below 100, else none; thousands separated."""
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.1e}"
    return f"{value:,.{4 if size < 10 else 1 if size < 100 else 0}f}"


def render_table(rows: Sequence[Mapping[str, object]], title: str, console: Console | None = None) -> None:
    """Print a table of scores, the highest of every column of floats in bold on a terminal, aligned text elsewhere.

    Args:
        rows: one mapping per row; the columns are all keys in order of appearance, missing values are blank.
        title: one line above it.
        console: where to; standard output by default.
    """
    console = console or Console()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    best = {name: max(scores) for name in columns if len(scores := _scores(rows, name)) > 1}
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns]
    if not console.is_interactive:
        lines = [title, "", *aligned([columns, *cells], numeric)]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row, texts in zip(rows, cells, strict=True):
        bold = [name in best and row.get(name) == best[name] for name in columns]
        table.add_row(*(Text(text, "bold" if is_best else "") for text, is_best in zip(texts, bold, strict=True)))
    console.print(table)


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of cells as text in columns, a rule below the first; ``right`` says which columns are flush right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(right))]
    padded = [
        "  ".join(
            text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return [padded[0], "  ".join("-" * width for width in widths), *padded[1:]]


def _scores(rows: Sequence[Mapping[str, object]], name: str) -> list[float]:
    return [value for row in rows if isinstance(value := row.get(name), float) and not math.isnan(value)]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
