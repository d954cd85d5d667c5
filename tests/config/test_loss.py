from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import LossConfig, RunConfig, load_config, to_yaml
from boom_ray.config.load import validate
from boom_ray.config.loss import DIRECTIONS, KINDS, MASKS, USED
from boom_ray.errors import ConfigError


def read(loss: dict[str, Any], **dataset: Any) -> RunConfig:
    one = {"name": "a", "source": "a.jsonl", "task_type": "retrieval", "loss": loss} | dataset
    return validate(RunConfig, {"name": "r", "corpus": {"datasets": [one]}}, "run.yaml")


def test_the_default_is_infonce_with_every_mask() -> None:
    loss = read({}).corpus.datasets[0].loss
    assert loss == LossConfig()
    assert (loss.kind, loss.directions, loss.mask, loss.margin) == ("infonce", DIRECTIONS[:1], MASKS, None)
    assert not loss.is_graded and not loss.is_taught


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str) -> None:
    loss = read({"kind": kind}).corpus.datasets[0].loss
    assert loss.is_graded == (kind in {"cosent", "angle"})
    assert loss.is_taught == (kind in {"kl", "margin_mse"})


def test_every_kind_says_what_it_uses() -> None:
    fields = set(LossConfig.model_fields) - {"kind"}
    assert set(USED) == set(KINDS)
    assert set().union(*USED.values()) == fields


@pytest.mark.parametrize(
    "loss",
    [
        {"directions": list(DIRECTIONS), "margin": 0.1, "mask": ["labels"], "temperature": 0.01},
        {"directions": ["passage_to_query", "query_to_passage"], "partition": "per_direction"},
        {"mask": []},
        {"kind": "cosent", "temperature": 0.1},
        {"kind": "kl", "temperature": 0.1, "teacher_temperature": 2.0},
        {"kind": "kl", "contrastive_weight": 1.0, "directions": list(DIRECTIONS), "margin": -0.1},
        {"kind": "margin_mse", "contrastive_weight": 0.5, "temperature": 0.1},
    ],
)
def test_sound_losses_are_read_back_as_they_were_written(loss: dict[str, Any], tmp_path: Path) -> None:
    config = read(loss)
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(RunConfig, path) == config
    written = yaml.safe_load(path.read_text())["corpus"]["datasets"][0]["loss"]
    assert written == LossConfig().identity() | loss


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"kind": "info_nce"}, "loss.kind: Input should be 'infonce', 'cosent', 'angle', 'kl' or 'margin_mse'"),
        ({"temperature": 0}, "loss.temperature: Input should be greater than 0"),
        ({"margin": 3}, "loss.margin: Input should be less than or equal to 2"),
        ({"directions": ["query_to_doc"]}, "loss.directions.0: Input should be 'query_to_passage'"),
        ({"directions": ["passage_to_query"]}, "loss.directions: must contain query_to_passage"),
        ({"directions": []}, "loss.directions: must contain query_to_passage"),
        (
            {"directions": ["query_to_passage", "query_to_passage"]},
            "loss.directions: nothing may be in it twice (got query_to_passage, query_to_passage)",
        ),
        ({"mask": ["labels", "labels"]}, "loss.mask: nothing may be in it twice"),
        (
            {"directions": ["query_to_passage", "query_to_query"], "partition": "per_direction"},
            "loss.partition: must be joint with query_to_query, where the positive pair is not",
        ),
        (
            {"directions": ["query_to_passage", "passage_to_passage"], "partition": "per_direction"},
            "loss.partition: must be joint with passage_to_passage",
        ),
        (
            {"kind": "cosent", "directions": ["query_to_passage", "query_to_query"]},
            "loss.directions: has no effect with kind cosent; remove it or choose another kind",
        ),
        ({"kind": "angle", "margin": 0.1}, "loss.margin: has no effect with kind angle"),
        ({"kind": "angle", "contrastive_weight": 1}, "loss.contrastive_weight: has no effect with kind angle"),
        ({"contrastive_weight": 1}, "loss.contrastive_weight: has no effect with kind infonce"),
        (
            {"kind": "kl", "contrastive_weight": -1},
            "loss.contrastive_weight: Input should be greater than or equal to 0",
        ),
        ({"teacher_temperature": 2}, "loss.teacher_temperature: has no effect with kind infonce"),
        ({"kind": "kl", "mask": []}, "loss.mask: has no effect with kind kl without a contrastive_weight"),
        ({"kind": "margin_mse", "temperature": 0.1}, "loss.temperature: has no effect with kind margin_mse without a"),
        (
            {"kind": "margin_mse", "contrastive_weight": 1, "teacher_temperature": 2},
            "loss.teacher_temperature: has no effect with kind margin_mse; remove it",
        ),
    ],
)
def test_faults_name_their_key(loss: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(loss)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith(f"  corpus.datasets.0.{expected}")
    assert len(lines) == 2


@pytest.mark.parametrize("dataset", [{"task_type": "classification"}, {"in_batch": False}])
def test_other_directions_need_the_other_examples(dataset: dict[str, Any]) -> None:
    read({}, **dataset)
    with pytest.raises(ConfigError) as caught:
        read({"directions": ["query_to_passage", "passage_to_query"]}, **dataset)
    assert str(caught.value).splitlines()[1] == (
        "  corpus.datasets.0.loss.directions: passage_to_query need the other examples of the step; set in_batch=true "
        "or leave them out"
    )
    read({"directions": list(DIRECTIONS)}, **dataset | {"in_batch": True})
