from __future__ import annotations

import io
import logging
import re
import threading

import pytest
from rich.console import Console

from boom_ray.events import Event
from boom_ray.progress import LINE_EVERY_S, Progress, Unit, aligned, clock_text, figure, render_table


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})


def terminal(height: int = 40) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, force_interactive=True, width=120, height=height, _environ={}
    )


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(progress: Progress) -> list[str]:
    """The table's lines without colours."""
    console = Console(file=io.StringIO(), width=140, _environ={})
    console.print(progress.table())
    return [line.rstrip() for line in text(console).splitlines()]


def test_plain_lines_come_at_start_end_note_and_every_few_seconds():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        for second in range(13):
            clock.now = float(second)
            progress(Event("members", "bag-20", second, 12, {"loss": 0.5}, "resumed" if second == 3 else ""))
    lines = text(console).splitlines()
    assert [line.split()[2] for line in lines] == ["0/12", "3/12", "8/12", "12/12"]  # 3 + 5 s = 8
    assert lines[1].endswith("resumed") and not any("resumed" in line for line in lines[2:])
    assert "0:08 so far, 0:04 left" in lines[2]
    assert "0:12 in all" in lines[3] and "left" not in lines[3]


def test_plain_output_holds_no_control_characters():
    console = plain()
    with Progress(console, Clock()) as progress:
        progress(Event("corpus", "[bold]x[/bold]", 1, 0, {"rows_per_s": 12345.6}, "note [red]"))
        progress.say("a [b] c")
    assert text(console) == "corpus  [bold]x[/bold]  1  rows/s 12,346  note [red]\na [b] c\n"


def test_units_are_throttled_each_by_itself():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        for step in range(100):
            clock.now = step * LINE_EVERY_S / 100
            progress(Event("members", f"bag-{step % 3}", step, 1000))
    assert len(text(console).splitlines()) == 3


def test_the_rate_of_what_is_heard_of_rarely_is_that_of_several_steps():
    unit = Unit(Event("scores", "all pairs", 0, 100), 0.0, 0.0)
    for now, done in ((0, 0), (100, 10), (200, 20), (300, 30), (301, 31)):  # the last two ended nearly together
        unit.take(Event("scores", "all pairs", done, 100), float(now))
    assert unit.eta(301.0) == pytest.approx(69 * (301 - 100) / (31 - 10))


def test_a_note_is_not_repeated_while_it_stays_the_same():
    console = plain()
    with Progress(console, Clock()) as progress:
        for _ in range(5):
            progress(Event("scores", "merged", 1, 5, note="waiting for a worker"))
    assert len(text(console).splitlines()) == 1


def test_the_rate_is_that_of_the_last_half_minute():
    unit = Unit(Event("s", "u", 0, 1000), 0.0, 0.0)
    for second in range(0, 101, 10):  # 1 per second, then 4 per second from 50 s on
        unit.take(Event("s", "u", second if second <= 50 else 50 + 4 * (second - 50), 1000), float(second))
    assert unit.eta(100.0) == pytest.approx((1000 - 250) / 4)
    assert unit.eta(110.0) == pytest.approx((1000 - 250) / 4 - 10)


def test_a_restart_measures_anew():
    unit = Unit(Event("s", "u", 0, 100), 0.0, 0.0)
    for now, done in ((1, 10), (2, 20), (30, 10)):
        unit.take(Event("s", "u", done, 100), float(now))
    assert unit.eta(30.0) is None
    unit.take(Event("s", "u", 20, 100), 31.0)
    assert unit.eta(31.0) == pytest.approx(8.0)


@pytest.mark.parametrize(("done", "total"), [(5, 0), (10, 10)])
def test_no_time_left_is_given_when_it_cannot_be(done, total):
    unit = Unit(Event("s", "u", 0, total), 0.0, 0.0)
    unit.take(Event("s", "u", 1, total), 1.0)
    unit.take(Event("s", "u", done, total), 2.0)
    assert unit.eta(3.0) is None


def test_the_table_keeps_units_in_order_and_folds_finished_stages():
    clock = Clock()
    progress = Progress(terminal(), clock)
    for name in ("a", "b"):
        progress(Event("corpus", name, 5, 5, {"rows_per_s": 9.0}))
    clock.now = 65.0
    progress(Event("corpus", "a", 5, 5))
    for name in ("bag-60", "bag-20"):
        progress(Event("members", name, 1, 4, {"pairs_per_s": 100.0, "loss": 0.25}, "note"))
    lines = shown(progress)
    assert lines[0].split() == ["stage", "unit", "progress", "done", "loss", "pairs/s", "elapsed", "left", "note"]
    assert lines[1].split() == ["corpus", "2", "units", "done", "1:05"]
    assert lines[2].split()[:2] == ["members", "bag-60"] and lines[3].split()[0] == "bag-20"
    assert lines[2].split()[-4:] == ["0.2500", "100", "0:00", "note"]
    assert len(lines) == 4


def test_a_stage_opens_again_when_something_new_comes():
    progress = Progress(terminal(), Clock())
    progress(Event("corpus", "a", 5, 5))
    progress(Event("members", "m", 1, 5))
    progress(Event("corpus", "late", 1, 5))
    assert any("late" in line for line in shown(progress))


def test_more_units_than_lines_are_counted():
    progress = Progress(terminal(height=20), Clock())
    for i in range(50):
        progress(Event("scores", f"task-{i}", 1 if i < 20 else 0, 1))
    lines = shown(progress)
    assert len(lines) <= 20
    assert lines[1].split() == ["scores", "20", "finished"]
    assert lines[-1].split() == [str(30 - (len(lines) - 3)), "more"]


def test_a_terminal_gets_one_table_and_lines_above_it():
    console = terminal()
    with Progress(console) as progress:
        handler = progress.log_handler()
        progress(Event("members", "bag-20", 1, 4, {"loss": 0.5}))
        progress.say("hello")
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "be %s", ("careful",), None))
    assert text(console).index("hello") < text(console).index("WARNING be careful") < text(console).rindex("bag-20")


def test_threads_and_the_redrawing_do_not_wait_for_each_other():
    progress = Progress(terminal())

    def work(name: str) -> None:
        for step in range(200):
            progress(Event("members", name, step + 1, 200))
            progress.say(f"{name} {step}")

    with progress:
        threads = [threading.Thread(target=work, args=(f"m{i}",), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
    assert [line.split()[-2] for line in shown(progress)[1:]] == ["200/200"] * 4


ROWS = [
    {"model": "base", "in-domain": 0.5, "tasks": 3},
    {"model": "merged", "in-domain": 0.625, "out-of-domain": 0.25, "tasks": 3},
]


def test_scores_are_aligned_text_when_not_on_a_terminal():
    console = plain()
    render_table(ROWS, "Scores", console)
    assert text(console).splitlines() == [
        "Scores",
        "",
        "model   in-domain  tasks  out-of-domain",
        "------  ---------  -----  -------------",
        "base         0.50      3",
        "merged       0.62      3           0.25",
    ]


def test_the_best_of_a_column_is_bold_on_a_terminal():
    console = terminal()
    render_table(ROWS, "Scores", console)
    assert re.findall(r"\x1b\[1m *([\d.]+)", text(console)) == ["0.62"]


def test_a_table_without_rows_is_its_title():
    console = plain()
    render_table([], "Scores", console)
    assert text(console).startswith("Scores")


def test_wide_lines_are_not_cut():
    assert aligned([["a", "b"], ["x" * 200, "1"]], [False, True]) == [
        f"{'a':200}  b",
        f"{'-' * 200}  -",
        f"{'x' * 200}  1",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.0000"), (0.51234, "0.5123"), (2e-5, "2.0e-05"), (12.34, "12.3"), (512.7, "513"), (-1234.0, "-1,234")],
)
def test_figures(value, expected):
    assert figure(value) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_clock(seconds, expected):
    assert clock_text(seconds) == expected


@pytest.mark.parametrize(
    ("done", "total", "shown_as"),
    [
        (0, 3_865_470_566, "0.0/3.6 GiB"),
        (1_288_490_189, 3_865_470_566, "1.2/3.6 GiB"),
        (125_952, 125_952, "123.0/123.0 KiB"),
        (5 * 2**20, 2**30, "0.0/1.0 GiB"),
        (3, 1023, "3/1,023 bytes"),
        (2**21, 0, "2.0 MiB"),
        (0, 0, "0 bytes"),
    ],
)
def test_bytes_are_told_with_their_unit(done: int, total: int, shown_as: str):
    console = plain()
    with Progress(console, Clock()) as progress:
        progress(Event("merge", "merged", done, total, measure="bytes"))
    assert f"merge  merged  {shown_as}" in text(console)
    (line,) = [line for line in shown(progress) if "merged" in line]
    assert shown_as in line


def test_things_that_are_counted_have_no_unit():
    console = plain()
    with Progress(console, Clock()) as progress:
        progress(Event("members", "bag", 1500, 2_000_000))
    assert "1,500/2,000,000 (0 %)" in text(console)
