from __future__ import annotations

import io

from rich.console import Console

from boom_ray.config import TaskConfig
from boom_ray.evaluation.schedule import UNKNOWN_SIZE, Job
from boom_ray.evaluation.scores import ModelRef
from boom_ray.evaluation.tally import Tally
from boom_ray.events import Event
from boom_ray.progress import Progress


def jobs(*sizes: int) -> list[Job]:
    return [
        Job(ModelRef("m", "", "", ""), TaskConfig(name=f"t{number}"), {}, {}, size) for number, size in enumerate(sizes)
    ]


def test_the_time_that_is_left_is_told_by_the_text_of_the_pairs_that_ended() -> None:
    now = 0.0
    console = Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})
    progress = Progress(console, lambda: now)
    pairs = jobs(6000, 3000, 2000, 1000)
    tally = Tally(pairs, progress)
    for job in pairs:
        now += job.size / 50
        tally.end(job)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "scores  all pairs  0/12,000 characters (0 %)  0 of 4",
        "scores  all pairs  6,000/12,000 characters (50 %)  2:00 so far, 2:00 left  1 of 4",
        "scores  all pairs  9,000/12,000 characters (75 %)  3:00 so far, 1:00 left  2 of 4",
        "scores  all pairs  11,000/12,000 characters (92 %)  3:40 so far, 0:20 left  3 of 4",
        "scores  all pairs  12,000/12,000 characters (100 %)  4:00 in all  4 of 4",
    ]


def test_pairs_are_counted_where_a_size_is_unknown() -> None:
    events: list[Event] = []
    pairs = jobs(5, UNKNOWN_SIZE, 7)
    tally = Tally(pairs, events.append)
    tally.end(pairs[1])
    assert events == [Event("scores", "all pairs", done, 3) for done in (0, 1)]


def test_a_single_pair_has_its_own_unit_only() -> None:
    events: list[Event] = []
    pairs = jobs(5)
    Tally(pairs, events.append).end(pairs[0])
    assert events == []
