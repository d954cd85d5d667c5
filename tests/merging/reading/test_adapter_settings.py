"""What adapter_config.json says, and the adapters that are no plain LoRA."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from boom_ray.errors import MergeError, ModelError
from boom_ray.merging.reading.adapter_settings import AdapterSettings, read_settings

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


def read(folder: Path, **changes: Any) -> AdapterSettings:
    content = {key: value for key, value in (PLAIN | changes).items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return read_settings(folder, "bag")


def test_scales(tmp_path: Path) -> None:
    assert read(tmp_path).scale("layer.query") == 2
    assert read(tmp_path, use_rslora=True).scale("layer.query") == 16 / math.sqrt(8)


@pytest.mark.parametrize(
    ("module", "rank", "scale"),
    [
        ("layers.0.q_proj", 4, 4.0),
        ("q_proj", 4, 4.0),
        ("layers.0.my_q_proj", 8, 2.0),
        ("layers.1.o_proj", 8, 0.5),
        ("layers.11.o_proj", 8, 2.0),
    ],
)
def test_patterns_match_whole_parts_of_names(tmp_path: Path, module: str, rank: int, scale: float) -> None:
    settings = read(tmp_path, rank_pattern={"q_proj": 4}, alpha_pattern={r"^layers\.1\.o_proj": 4, "o_proj$^": 1})
    assert settings.rank_of(module) == rank
    assert settings.scale(module) == scale


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", ...])
def test_starts_that_leave_the_base_alone(tmp_path: Path, start: Any) -> None:
    assert read(tmp_path, init_lora_weights=start).rank == 8


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"peft_type": "LOHA"}, "adapter of type LOHA; only LORA"),
        ({"peft_type": "ADALORA"}, "adapter of type ADALORA"),
        ({"use_dora": True}, "use_dora=True: such an adapter is more than"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4, which changes the base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights=loftq"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication="),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters="),
        ({"of_a_later_version": 0.5}, "of_a_later_version=0.5"),
        ({"r": ...}, "is not what peft writes: KeyError"),
        ({"rank_pattern": {"(": 3}}, "is not what peft writes"),
        ({"rank_pattern": [1]}, "is not what peft writes"),
        ({"r": 0}, "rank below 1"),
        ({"rank_pattern": {"q": 0}}, "rank below 1"),
    ],
)
def test_what_is_no_plain_lora(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(MergeError, match=f"bag: .*adapter_config.json .*{text}"):
        read(tmp_path, **changes)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json is not valid JSON"):
        read_settings(tmp_path, "bag")
