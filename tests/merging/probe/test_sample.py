from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.config import LossConfig, MatryoshkaConfig, TrainingConfig
from boom_ray.errors import MergeError
from boom_ray.merging.probe.sample import LossSettings, draw, spread
from tests.merging.probe.world import LOSS
from tests.token_corpus import write_tokens

SIZES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 40), min_size=1)


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(1, 100))
def test_examples_are_spread_evenly_and_small_datasets_give_all(sizes, total):
    quotas = spread(sizes, total)
    assert quotas.keys() == sizes.keys()
    assert sum(quotas.values()) == min(total, sum(sizes.values()))
    most = max(quotas.values())
    for name, quota in quotas.items():
        assert quota <= sizes[name]
        assert quota == sizes[name] or quota >= most - 1


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(1, 99))
def test_one_more_example_takes_none_away(sizes, total):
    fewer, more = spread(sizes, total), spread(sizes, total + 1)
    assert all(fewer[name] <= more[name] for name in sizes)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, TokenDataset]:
    folder = tmp_path_factory.mktemp("sample")
    sizes = {"x": 50, "y": 7}
    return {name: TokenDataset([write_tokens(folder / name, name, rows)]) for name, rows in sizes.items()}


def ids(corpus, steps, name: str) -> list[int]:
    return [int(number) for step in steps if step.dataset == name for number in corpus[name].ids[step.rows]]


def test_steps_hold_one_dataset_and_nearly_the_same_number(datasets):
    steps = draw(datasets, 30, 8, seed=1)
    sizes = {name: sorted(len(step.rows) for step in steps if step.dataset == name) for name in "xy"}
    assert sizes == {"x": [7, 8, 8], "y": [7]}
    for name in "xy":
        chosen = ids(datasets, steps, name)
        assert len(set(chosen)) == len(chosen)


def test_the_sample_depends_on_the_seed_alone(datasets):
    one, again, other = (draw(datasets, 20, 8, seed) for seed in (1, 1, 2))
    assert [(s.dataset, s.rows.tolist()) for s in one] == [(s.dataset, s.rows.tolist()) for s in again]
    assert set(ids(datasets, one, "x")) != set(ids(datasets, other, "x"))
    assert set(ids(datasets, one, "x")) < set(ids(datasets, draw(datasets, 40, 8, 1), "x"))


def test_order_of_rows_in_files_does_not_matter(datasets):
    class Turned:
        def __init__(self, dataset):
            self.ids = dataset.ids[::-1].copy()

        def __len__(self):
            return len(self.ids)

    turned = {name: Turned(dataset) for name, dataset in reversed(datasets.items())}
    one, other = draw(datasets, 20, 8, 1), draw(turned, 20, 8, 1)
    assert [datasets[s.dataset].ids[s.rows].tolist() for s in one] == [
        turned[s.dataset].ids[s.rows].tolist() for s in other
    ]


def test_an_empty_corpus_is_an_error():
    with pytest.raises(MergeError, match="no examples"):
        draw({}, 10, 4, 0)


def test_a_sample_of_a_corpus_artifact(world):
    job = world.sample(examples=20, batch=4)
    sample = job.open(world.store, LOSS.negatives)
    assert sample.examples == {"long": 14, "short": 6}
    losses = {name: {"in_batch": name == "long", "loss": LossConfig().identity()} for name in ("long", "short")}
    assert job.spec() == {"examples": 20, "batch": 4, "seed": 0, "losses": losses}
    policies = job.step_loss(LOSS).policies
    assert {name: (one.in_batch, one.temperature) for name, one in policies.items()} == {
        "long": (True, LOSS.temperature),
        "short": (False, LOSS.temperature),
    }
    for index, step in enumerate(sample.steps):
        batch = sample.batch(index)
        assert (batch.dataset, batch.size) == (step.dataset, len(step.rows))
        assert np.array_equal(batch.ids, sample.reader.corpus[step.dataset].ids[step.rows])


def test_widths_that_members_were_trained_at_belong_to_the_loss():
    plain = LossSettings.of(TrainingConfig())
    cut = LossSettings.of(TrainingConfig(matryoshka=MatryoshkaConfig(dimensions=(16, 4))))
    assert plain.identity() == {"temperature": 0.02, "negatives": 7, "precision": "bfloat16"}
    assert cut.identity() == plain.identity() | {"matryoshka": {"dimensions": (16, 4), "weights": (1.0, 1.0)}}
