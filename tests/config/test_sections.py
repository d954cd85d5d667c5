from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

import boom_ray.config
from boom_ray.config import CorpusConfig, MixtureConfig, ResourcesConfig, RunConfig, Section, TrainingConfig
from boom_ray.config.load import _inner_section
from boom_ray.hashing import canonical_json

DATASET = {"name": "a", "source": "a.jsonl", "task_type": "retrieval"}
SECTIONS = sorted(
    (one for one in vars(boom_ray.config).values() if isinstance(one, type) and issubclass(one, Section)),
    key=lambda one: one.__name__,
)


def reachable(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for info in section.model_fields.values():
        inner = _inner_section(info.annotation)
        if inner is not None:
            yield from reachable(inner)


def test_every_section_of_a_run_is_exported() -> None:
    assert set(reachable(RunConfig)) | {Section} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_a_one_line_description(section: type[Section]) -> None:
    assert section.__doc__
    for name, info in section.model_fields.items():
        text = info.description or ""
        assert 8 <= len(text) <= 140, f"{section.__name__}.{name}: {text!r}"
        assert "\n" not in text
        assert not text.endswith("."), f"{section.__name__}.{name}: a phrase, not a sentence"


def test_sections_are_frozen_and_refuse_unknown_fields() -> None:
    config = TrainingConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 2  # type: ignore[misc]  # that it is refused is the point
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrainingConfig(epoch=2)  # type: ignore[call-arg]


def test_identity_leaves_out_what_only_says_where_or_how_fast_it_runs() -> None:
    slow = TrainingConfig()
    fast = TrainingConfig(micro_batch_tokens=512, log_every=1, resources=ResourcesConfig(workers=8, gpus_per_worker=1))
    assert fast != slow
    assert fast.identity() == slow.identity()
    assert TrainingConfig(learning_rate=1e-5).identity() != slow.identity()
    assert not {"resources", "checkpoint_every", "keep_checkpoints", "log_every"} & set(slow.identity())


def test_identity_reaches_into_nested_sections_and_is_json() -> None:
    def corpus(**more: Any) -> CorpusConfig:
        return CorpusConfig.model_validate({"datasets": [DATASET | more]})

    assert corpus(split="dev").identity() != corpus().identity()
    assert corpus(columns={"query": "q"}).identity()["datasets"][0]["columns"]["query"] == "q"
    text = canonical_json(RunConfig.model_validate({"name": "r", "corpus": {"datasets": [DATASET]}}).identity())
    assert '"fragment_mb"' not in text and '"micro_batch_tokens"' not in text and '"workers"' not in text
    assert '"score_range":[0.0,1.0]' in text


def test_runtime_fields_are_the_ones_known_to_change_no_result() -> None:
    """A field moved to or from this list changes which artifacts are shared: that is to be done on purpose."""
    marked = {
        f"{section.__name__}.{name}"
        for section in SECTIONS
        for name, info in section.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("runtime")
    }
    decides = {"batch_size", "learning_rate", "precision", "temperature", "negatives", "dropout"}
    assert not {f"TrainingConfig.{name}" for name in decides} & marked
    data = {name for name in marked if name.startswith(("BagConfig", "BagsConfig", "DatasetConfig", "TaskConfig"))}
    assert data == {"TaskConfig.overlaps"}  # what a task is called in reports, not what it is
    assert {name for name in marked if name.startswith("ResourcesConfig")} == {
        f"ResourcesConfig.{name}" for name in ResourcesConfig.model_fields
    }


def test_units_are_given_where_a_number_has_one() -> None:
    pattern = re.compile(r"_(gb|mb|tokens|per_worker|per_actor)$")
    for section in SECTIONS:
        for name, info in section.model_fields.items():
            if pattern.search(name):
                units = ("GiB", "MiB", "bytes", "tokens", "CPU", "GPU")
                assert any(unit in (info.description or "") for unit in units), f"{section.__name__}.{name}"


def test_a_mixture_without_weights_has_the_identity_that_bags_of_earlier_versions_were_keyed_by() -> None:
    assert MixtureConfig().identity() == {"temperature": 1.0, "caps": {}, "max_examples": None}
    assert MixtureConfig(weights={"a": 2}).identity()["weights"] == {"a": 2.0}
