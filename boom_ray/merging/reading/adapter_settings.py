"""What ``adapter_config.json`` of peft says, read without peft, and refused where it is more than a plain LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boom_ray.errors import MergeError
from boom_ray.model.folder import ADAPTER_CONFIG, read_json

PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of ``init_lora_weights`` that leave the base's weights alone; peft 0.21 has others that change them."""
# fmt: off
HARMLESS = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config",
    "megatron_config", "megatron_core", "modules_to_save", "modules_to_tie", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "target_modules_to_tie", "task_type", "use_rslora",
})
# fmt: on
"""Settings that are read here, or that do not change what trained matrices mean; any other one must be off."""


@dataclass(frozen=True)
class AdapterSettings:
    """What decides the scale of an adapter's products.

    Attributes:
        rank: r.
        alpha: numerator of the scale.
        rank_pattern: pattern of module names to another rank.
        alpha_pattern: pattern of module names to another alpha.
        stabilised: whether the scale is alpha/sqrt(r) instead of alpha/r.
        fan_in_fan_out: whether the base's layers store (inputs, outputs), as GPT-2's do.
        base_name: what the adapter calls its base.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    stabilised: bool
    fan_in_fan_out: bool
    base_name: str | None

    def rank_of(self, module: str) -> int:
        """Rank of a module's adapter."""
        return int(_first_match(self.rank_pattern, module, self.rank))

    def scale(self, module: str) -> float:
        """What B·A of a module is multiplied with."""
        rank, alpha = self.rank_of(module), float(_first_match(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.stabilised else rank)

    def identity(self) -> dict[str, Any]:
        """The fields that determine the weights, as JSON."""
        patterns = {"rank_pattern": dict(self.rank_pattern), "alpha_pattern": dict(self.alpha_pattern)}
        return {name: getattr(self, name) for name in ("rank", "alpha", "stabilised", "fan_in_fan_out")} | patterns


def _first_match(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that matches the module's last parts, as peft's ``get_pattern_key`` decides."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def read_settings(folder: Path, label: str) -> AdapterSettings:
    """Read the settings of a plain LoRA adapter.

    Args:
        folder: where ``adapter_config.json`` is.
        label: name of the member, for errors.

    Raises:
        MergeError: another kind of adapter, one with extensions (DoRA and others), one whose start changed the base
            (PiSSA, OLoRA and others), or a malformed file.
        ModelError: the file is missing or no JSON.
    """
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    try:
        _check_plain(config, f"{label}: {path}")
        found = AdapterSettings(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            rank_pattern={str(key): int(rank) for key, rank in (config.get("rank_pattern") or {}).items()},
            alpha_pattern={str(key): float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()},
            stabilised=bool(config.get("use_rslora")),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
            base_name=config.get("base_model_name_or_path"),
        )
        for pattern in (*found.rank_pattern, *found.alpha_pattern):
            re.compile(pattern)
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise MergeError(f"{label}: {path} is not what peft writes: {error!r}. Save the adapter again.") from error
    if min(found.rank, *found.rank_pattern.values(), 1) < 1:
        raise MergeError(f"{label}: {path} has a rank below 1.")
    return found


def _check_plain(config: Mapping[str, Any], where: str) -> None:
    advice = "Fold it into its base with peft (merge_and_unload), save that as a complete model and merge it."
    kind = config["peft_type"]
    if kind != "LORA":
        raise MergeError(f"{where} is an adapter of type {kind}; only LORA is formed here. {advice}")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise MergeError(
            f"{where} has init_lora_weights={start}, which changes the base's weights before training, so the base's "
            f"files are not what the adapter belongs to. {advice}"
        )
    extra = next((key for key, value in sorted(config.items()) if value and key not in HARMLESS), None)
    if extra is not None:
        raise MergeError(
            f"{where} has {extra}={config[extra]!r}: such an adapter is more than the product of two matrices. {advice}"
        )
