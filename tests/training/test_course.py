from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Stage
from boom_ray.config import TrainingConfig
from boom_ray.training.course import Course
from boom_ray.training.optimizer import learning_rate

configs = st.builds(
    TrainingConfig,
    learning_rate=st.just(1.0),
    accumulation=st.integers(1, 5),
    warmup_ratio=st.sampled_from([0.0, 0.1, 0.5]),
    decay=st.sampled_from(["linear", "cosine", "constant", "wsd"]),
)
stages = st.lists(st.builds(Stage, st.just("s"), st.integers(1, 12), st.none() | st.floats(1e-6, 1)), max_size=4)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), configs, st.data())
def test_without_stages_it_is_one_curve_over_all_updates(steps, config, data):
    course, each = Course(steps, (), config), config.accumulation
    total = math.ceil(steps / each)
    assert course.updates == total
    number = data.draw(st.integers(0, total - 1))
    assert course.update(number) == (min(each, steps - number * each), learning_rate(number, total, config))
    step = data.draw(st.integers(0, steps))
    assert course.done(step) == math.ceil(step / each)


@settings(deadline=None, max_examples=50)
@given(stages.filter(bool), configs)
def test_every_stage_is_a_run_of_its_own(stages, config):
    steps = sum(stage.steps for stage in stages)
    course = Course(steps, stages, config)
    expected = []
    for stage in stages:
        rate = config.learning_rate if stage.learning_rate is None else stage.learning_rate
        own = Course(stage.steps, (), config.model_copy(update={"learning_rate": rate}))
        expected += [own.update(number) for number in range(own.updates)]
    found = [course.update(number) for number in range(course.updates)]
    assert found == expected
    finished = 0
    for number, (count, _) in enumerate(found):
        assert course.done(finished) == number
        finished += count
        assert course.done(finished) == number + 1
    assert finished == steps


@settings(deadline=None, max_examples=50)
@given(stages.filter(bool), configs, st.data())
def test_a_stage_that_is_cut_off_is_as_short_as_what_is_left(stages, config, data):
    whole = sum(stage.steps for stage in stages)
    steps = data.draw(st.integers(1, whole))
    left, kept = steps, []
    for stage in stages:
        kept.append(Stage(stage.name, min(left, stage.steps), stage.learning_rate))
        left -= kept[-1].steps
    one = Course(steps, stages, config)
    other = Course(steps, [stage for stage in kept if stage.steps], config)
    assert one.updates == other.updates
    assert [one.update(n) for n in range(one.updates)] == [other.update(n) for n in range(other.updates)]
    assert [one.done(step) for step in range(steps + 1)] == [other.done(step) for step in range(steps + 1)]


def test_rates_of_two_stages():
    config = TrainingConfig(learning_rate=1.0, warmup_ratio=0.5, accumulation=2)
    course = Course(9, [Stage("one", 4), Stage("two", 5, 0.1)], config)
    assert [course.update(number) for number in range(course.updates)] == [
        (2, 1.0),
        (2, 1.0),
        (2, 0.05),
        (2, 0.1),
        (1, 0.1),
    ]
