"""False negatives: which passages and queries of a step answer a query and so must not count as its negatives.

Candidates are compared with row i, the pair of query i and its positive. They are hidden from it by kind (`mask` of
`boom_ray.config.LossConfig`):

- positives: the candidate's text is one of i's known positives; a query also if i's positive or i's text is one of its.
- duplicates: the candidate's text is the text of query i.
- labels: the candidate is the query or the positive of an example with i's label.

Masks that hold for a block of rows only keep a step of any size in bounded memory.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from boom_ray.model.losses.facts import Facts


def hidden_passages(facts: Facts, kinds: Collection[str], rows: slice) -> torch.Tensor:
    """Passages of the step that are no negatives of the rows, absent ones among them.

    Args:
        facts: of the step.
        kinds: of positives, duplicates and labels.
        rows: r of the B rows.

    Returns:
        (r, B, 1+K) bool; what it says of the rows' own positives does not count.
    """
    same = _same_text(facts, kinds, rows, facts.candidate_keys.reshape(1, -1))
    hidden = same.unflatten(1, facts.candidate_keys.shape) | ~facts.present
    if "labels" in kinds and facts.labels is not None:
        hidden[:, :, 0] |= _same_label(facts.labels, rows)
    return hidden


def hidden_own(facts: Facts, kinds: Collection[str]) -> torch.Tensor:
    """Passages of each example that are no negatives of its own query: (B, 1+K) bool, whatever of the positive."""
    return ~facts.present | _same_text(facts, kinds, slice(None), facts.candidate_keys)


def hidden_queries(facts: Facts, kinds: Collection[str], rows: slice) -> torch.Tensor:
    """Queries of the step that are no negatives of the rows.

    Returns:
        (r, B) bool; what it says of the rows' own queries does not count.
    """
    hidden = _same_text(facts, kinds, rows, facts.query_keys.unsqueeze(0))
    if "positives" in kinds:
        for known in facts.known_positives.T:
            for key in (facts.candidate_keys[rows, :1], facts.query_keys[rows, None]):
                hidden |= known == key
    if "labels" in kinds and facts.labels is not None:
        hidden |= _same_label(facts.labels, rows)
    return hidden


def _same_text(facts: Facts, kinds: Collection[str], rows: slice, keys: torch.Tensor) -> torch.Tensor:
    """(r, n) bool: which of the keys, (1, n) or (r, n), are a row's known positive or its query's text."""
    own = facts.query_keys[rows, None]
    hidden = keys == own if "duplicates" in kinds else torch.zeros_like(keys == own)
    if "positives" in kinds:
        for column in facts.known_positives[rows].T:
            hidden |= keys == column.unsqueeze(1)
    return hidden


def _same_label(labels: torch.Tensor, rows: slice) -> torch.Tensor:
    """(r, B) bool."""
    return labels[rows, None] == labels
