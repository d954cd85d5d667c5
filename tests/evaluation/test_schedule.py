from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from boom_ray.config import TaskConfig
from boom_ray.evaluation.schedule import UNKNOWN_SIZE, Job, Schedule
from boom_ray.evaluation.scores import ModelRef


def job(model: int, task: int, size: int) -> Job:
    return Job(ModelRef(f"m{model}", "", "", ""), TaskConfig(name=f"t{task}"), {}, {}, size)


jobs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 50)), unique_by=lambda row: row[:2])


@given(jobs, st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_job_is_taken_once_and_models_are_loaded_few_times(rows: list, actors: int, chance: object) -> None:
    schedule = Schedule(job(*row) for row in rows)
    loaded: dict[int, str | None] = dict.fromkeys(range(actors))
    taken, loads = [], 0
    idle = set(range(actors))
    while idle:
        actor = chance.choice(sorted(idle))  # type: ignore[attr-defined]
        found = schedule.take(loaded[actor])
        if found is None:
            idle.remove(actor)
            continue
        loads += found.model.name != loaded[actor]
        loaded[actor] = found.model.name
        taken.append((found.model.name, found.task.name))
    assert sorted(taken) == sorted((f"m{model}", f"t{task}") for model, task, _ in rows)
    assert loads <= len({row[0] for row in rows}) * actors


@given(jobs)
def test_one_actor_loads_each_model_once_and_takes_its_largest_task_first(rows: list) -> None:
    schedule = Schedule(job(*row) for row in rows)
    order: list[Job] = []
    while (found := schedule.take(order[-1].model.name if order else None)) is not None:
        order.append(found)
    names = [found.model.name for found in order]
    changes = sum(a != b for a, b in pairwise(names))
    assert changes == max(len(set(names)) - 1, 0)
    for a, b in pairwise(order):
        assert a.model != b.model or a.size >= b.size


def test_actors_spread_over_models_with_most_work_first() -> None:
    schedule = Schedule([job(0, 0, 5), job(1, 0, 9), job(1, 1, 8), job(2, 0, 1)])
    first, second, third = schedule.take(None), schedule.take(None), schedule.take(None)
    assert first and second and third
    assert [found.model.name for found in (first, second, third)] == ["m1", "m0", "m2"]


def test_jobs_of_one_size_are_taken_as_given() -> None:
    schedule = Schedule(job(0, task, size) for task, size in enumerate((3, UNKNOWN_SIZE, 3, UNKNOWN_SIZE, 4)))
    names = []
    while (found := schedule.take("m0")) is not None:
        names.append(found.task.name)
    assert names == ["t1", "t3", "t4", "t0", "t2"]
