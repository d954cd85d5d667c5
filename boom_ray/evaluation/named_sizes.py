"""How much text mteb's own tasks make a model encode, as the statistics say that come with mteb; no data is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def characters(task: Any, splits: Sequence[str], subsets: Sequence[str] = ()) -> int | None:
    """Characters that a task makes a model encode; None if mteb does not say.

    Args:
        task: one of mteb's classes, or an object of it; an aggregate's size is that of its parts.
        splits: which of its splits count.
        subsets: which of its subsets count; empty: all.
    """
    parts = getattr(task.metadata, "tasks", None)
    if parts:
        sizes = [characters(part, splits) for part in parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None
    stats = task.metadata.descriptive_stats or {}
    count = _of_languages if getattr(task, "parallel_subsets", False) else _of_subsets
    try:
        return sum(count(task, _statistics(stats[split], subsets)) for split in splits) or None
    except KeyError:
        return None


def _statistics(split: Mapping[str, Any], subsets: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Those of a split's subsets, or of the split itself where it has no others than mteb's ``default``."""
    inner = split.get("hf_subset_descriptive_stats") or {"default": split}
    return {name: inner[name] for name in subsets or inner}


def _of_languages(task: Any, statistics: Mapping[str, Mapping[str, Any]]) -> int:
    """Bitext tasks whose subsets are pairs of languages encode every language once."""
    lengths: dict[str, int] = {}
    for name, one in statistics.items():
        first, second = name.split("-")
        lengths[first] = one["sentence1_statistics"]["total_text_length"]
        lengths[second] = one["sentence2_statistics"]["total_text_length"]
    return sum(lengths.values())


def _of_subsets(task: Any, statistics: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(_encoded(task, one) for one in statistics.values())


def _encoded(task: Any, statistics: Mapping[str, Any]) -> int:
    """Clustering tasks embed a sample: a share of their documents, or so many."""
    whole: int = statistics.get("number_of_characters") or sum(
        one.get("total_text_length") or 0 for one in statistics.values() if isinstance(one, Mapping)
    )
    share = getattr(task, "max_fraction_of_documents_to_embed", None)
    most = getattr(task, "max_document_to_embed", None)
    if share is None and most is not None:
        share = most / statistics["num_samples"]
    return whole if share is None else int(whole * min(1.0, share))
