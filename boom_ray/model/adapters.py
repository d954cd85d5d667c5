"""What of a model is trained: low-rank adapters instead of its weights, and parameters that stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from boom_ray.config import LoraConfig
from boom_ray.errors import ModelError


def with_adapters(transformer: nn.Module, lora: LoraConfig) -> nn.Module:
    """Wrap a transformer with peft's adapters, their first values from torch's random state.

    Raises:
        ModelError: the targets do not fit the model.
    """
    from peft import get_peft_model

    try:
        return cast(nn.Module, get_peft_model(cast(Any, transformer), _peft_config(transformer, lora)))
    except (ValueError, KeyError) as error:
        raise ModelError(f"model.lora.targets does not fit this model: {error}") from error


def _peft_config(transformer: nn.Module, lora: LoraConfig) -> Any:
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes floats, its annotation says int
        lora_dropout=lora.dropout,
        target_modules=_targets(transformer, lora),
        exclude_modules=list(lora.exclude) or None,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias=lora.bias,
        init_lora_weights=True if lora.init == "default" else lora.init,
        modules_to_save=list(lora.modules_to_save) or None,
    )


def _targets(transformer: nn.Module, lora: LoraConfig) -> str | list[str]:
    """The targets as peft takes them; with numbers of blocks, one regular expression of all names.

    peft's own ``layers_to_transform`` knows neither all-linear nor models whose blocks stand at their root.
    """
    if not lora.layers:
        return lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    names = lora.targets
    if isinstance(names, str):
        linear = [name for name, one in transformer.named_modules() if isinstance(one, nn.Linear)]
        names = tuple(sorted({name.rsplit(".", 1)[-1] for name in linear}))
    _, blocks = block_list(transformer)
    wrong = [number for number in lora.layers if not 0 <= number < len(blocks)]
    if wrong:
        raise ModelError(f"model.lora.layers has {wrong[0]}; the model's blocks are 0 to {len(blocks) - 1}.")
    place = re.escape(block_list(transformer)[0])
    return rf"{place}\.({'|'.join(map(str, lora.layers))})\.(.*\.)?({'|'.join(map(re.escape, names))})"


def block_list(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and blocks of a transformer from first to last: its longest list of modules of one class."""
    lists = [(name, list(one)) for name, one in model.named_modules() if isinstance(one, nn.ModuleList)]
    alike = [(name, one) for name, one in lists if one and len({type(block) for block in one}) == 1]
    return max(alike, key=lambda pair: len(pair[1]), default=("", []))


def fold(transformer: nn.Module) -> nn.Module:
    """The transformer with its adapters added to the weights; one without adapters as it is."""
    merged = getattr(transformer, "merge_and_unload", None)
    return transformer if merged is None else cast(nn.Module, merged())


def freeze(parameters: Iterable[tuple[str, nn.Parameter]], patterns: Sequence[str]) -> None:
    """Stop training the parameters whose names match.

    Args:
        parameters: names and parameters.
        patterns: as `fnmatch` reads them, e.g. ``*.layer.[0-5].*``.

    Raises:
        ModelError: a pattern matches none.
    """
    named = list(parameters)
    for pattern in patterns:
        found = [parameter for name, parameter in named if fnmatchcase(name, pattern)]
        if not found:
            some = ", ".join(name for name, _ in named[:: max(1, len(named) // 6)])
            raise ModelError(f"model.frozen: {pattern} matches no parameter; their names are like {some}.")
        for parameter in found:
            parameter.requires_grad_(False)
