"""The geometry report: how far the members went from the base, and in how far the same way, by layer.

People read it to decide how to merge. Cosines near 1 and much agreement of signs: the members learned the same, and
averaging loses nothing. Cosines near 0: averaging M of them leaves a difference of about 1/√M of their length, so that
the merged model moves less from the base than any member; methods that keep lengths or elect signs undo that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from boom_ray.config import MergeConfig
from boom_ray.merging.geometry.coefficients import coefficients, has_coefficients, merged_length
from boom_ray.merging.geometry.portrait import Portrait
from boom_ray.merging.geometry.signs import Signs
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.recipe import MemberRef, Recipe, resolve
from boom_ray.merging.rules import layer_of
from boom_ray.merging.tensors.space import F64, Space

EMBEDDINGS, OTHER, WHOLE = "embeddings", "other", "whole model"
PREDICTED = ("linear", "multislerp")
"""Methods whose merged length is always told, beside that of the recipe."""
Cell = str | int | float | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Group:
    """Some tensors taken together as one long vector.

    Attributes:
        name: ``embeddings``, ``layer 7``, ``other``, ``whole model``, or a tensor's name.
        keys: its tensors.
        space: inner products of the members' vectors: differences from the base, or whole weights without one.
        signs: counts of signs, with a base.
        base_norm: length of the base's weights, with a base.
        unchanged: tensors in which every member equals the base.
    """

    name: str
    keys: tuple[str, ...]
    space: Space
    signs: Signs | None
    base_norm: float | None
    unchanged: int

    def cosine(self, left: int, right: int) -> float | None:
        """Cosine between two members' vectors; None if one is zero."""
        angle = self.angle(left, right)
        return None if angle is None else math.cos(angle)

    def angle(self, left: int, right: int) -> float | None:
        """Angle between two members' vectors, radians; None if one is zero."""
        if 0 in (self.space.norms[left], self.space.norms[right]):
            return None
        one = np.eye(self.space.members)
        return self.space.angle(one[left], one[right])

    def degrees(self, left: int, right: int) -> float | None:
        """The angle in degrees."""
        angle = self.angle(left, right)
        return None if angle is None else math.degrees(angle)


def groups(portrait: Portrait, name_of: Callable[[str], str] | None = None) -> list[Group]:
    """The tensors by group: embeddings, layers in their order, others, and last the whole model.

    Args:
        portrait: what was gathered.
        name_of: name of a tensor's group; by default `group_of`.
    """
    by_name: dict[str, list[str]] = {}
    for key in sorted(portrait.grams):
        by_name.setdefault((name_of or group_of)(key), []).append(key)
    found = [_group(portrait, name, by_name[name]) for name in sorted(by_name, key=_place)]
    return [*found, _group(portrait, WHOLE, sorted(portrait.grams))]


def group_of(key: str) -> str:
    """Group of a tensor by its name: its layer, else ``embeddings`` for embeddings, else ``other``."""
    layer = layer_of(key)
    if layer is not None:
        return f"layer {layer}"
    name = key.rsplit("/", 1)[-1]
    return EMBEDDINGS if "embed" in name or name.split(".")[0] in ("wte", "wpe") else OTHER


def _place(name: str) -> tuple[int, int, str]:
    if name == EMBEDDINGS:
        return 0, 0, name
    return (1, int(name.removeprefix("layer ")), name) if name.startswith("layer ") else (2, 0, name)


def _group(portrait: Portrait, name: str, keys: Sequence[str]) -> Group:
    basis: F64 = np.add.reduce([portrait.grams[key] for key in keys])
    if not portrait.about_base:
        return Group(name, tuple(keys), Space.of_first(basis), None, None, 0)
    unchanged = sum(not np.diag(portrait.grams[key])[1:].any() for key in keys)
    signs = sum((portrait.signs[key] for key in keys), Signs.none(len(portrait.members)))
    space = Space.of_differences(basis, whole=False)
    return Group(name, tuple(keys), space, signs, math.sqrt(max(basis[0, 0], 0.0)), unchanged)


def table(portrait: Portrait, recipe: Recipe | None = None, found: Sequence[Group] | None = None) -> list[Row]:
    """One row per group.

    Columns: tensors and parameters; with a base how many tensors no member changed and the base's length; the mean and
    the least cosine over pairs of members, and the widest angle; the length of every member's vector, with a base also
    the mean length as a share of the base's; the mean agreement of signs; and what merging does to the length, see
    `shrinkage`.

    Args:
        portrait: what was gathered.
        recipe: its method's effect is told too, if it follows from inner products.
        found: rows; by default `groups`.
    """
    return [_row(portrait, group, recipe) for group in found or groups(portrait)]


def _row(portrait: Portrait, group: Group, recipe: Recipe | None) -> Row:
    pairs = list(itertools.combinations(range(len(portrait.members)), 2))
    cosines = [group.cosine(*pair) for pair in pairs]
    angles = [group.degrees(*pair) for pair in pairs]
    norms = group.space.norms.tolist()
    row: Row = {
        "group": group.name,
        "tensors": len(group.keys),
        "parameters": sum(portrait.sizes[key] for key in group.keys),
    }
    if portrait.about_base:
        row |= {"unchanged": group.unchanged, "base_length": group.base_norm}
    row |= {
        "cosine_mean": _mean(cosines),
        "cosine_least": min((one for one in cosines if one is not None), default=None),
        "angle_most": max((one for one in angles if one is not None), default=None),
    }
    row |= {f"length {name}": norm for name, norm in zip(portrait.members, norms, strict=True)}
    if group.signs is None:
        return row
    row["relative_length"] = float(np.mean(norms)) / group.base_norm if group.base_norm else None
    row["sign_agreement"] = _mean([group.signs.agreement(*pair) for pair in pairs])
    return row | shrinkage(portrait, group, recipe)


def shrinkage(portrait: Portrait, group: Group, recipe: Recipe | None = None) -> Row:
    """Length of merged weights - base, divided by the members' weighted mean length Σ w_i ‖d_i‖; 1 keeps the length.

    With a method's coefficients a_t of every tensor t and the Gram matrices G_t of the differences, the merged length
    follows without merging: √(Σ_t a_t' G_t a_t). Told for ``linear`` and ``multislerp`` (on differences, equal weights)
    and for the recipe, if its coefficients follow from inner products. ``sign_election`` was measured in the pass that
    counted signs: TIES without trimming, equal weights.
    """
    members = [MemberRef(name, "", name, 0) for name in portrait.members]
    mean = float(np.mean(group.space.norms))
    if group.signs is None or mean == 0:
        return {}
    row: Row = {f"kept_{name}": _length(portrait, group, _plain(name, members)) / mean for name in PREDICTED}
    row["kept_sign_election"] = math.sqrt(group.signs.elected) / mean
    if recipe is not None and has_coefficients(recipe):
        own = float(np.array(recipe.weights) @ group.space.norms)
        row["kept_recipe"] = _length(portrait, group, recipe) / own if own else None
    return row


def _plain(method: str, members: Sequence[MemberRef]) -> Recipe:
    """A method with its defaults and equal weights, on differences if it can."""
    optional = METHODS[method].base == "optional"
    return resolve(MergeConfig(method=method, base="base" if optional else "none"), members)


def _length(portrait: Portrait, group: Group, recipe: Recipe) -> float:
    """Length of merged weights - base over the group's tensors."""
    squares = []
    for key in group.keys:
        basis = portrait.grams[key]
        about = portrait.total if "model_gram" in recipe.needs else basis
        space = Space.of_differences(about, whole=not recipe.uses_base)
        squares.append(merged_length(basis, coefficients(recipe, key, space), recipe.uses_base) ** 2)
    return math.sqrt(math.fsum(squares))


def pair_rows(portrait: Portrait, found: Sequence[Group] | None = None) -> list[Row]:
    """One row per group and pair of members: cosine, angle in degrees, and agreement of signs with a base."""
    rows: list[Row] = []
    for group in found or groups(portrait):
        for left, right in itertools.combinations(range(len(portrait.members)), 2):
            row: Row = {"group": group.name, "one": portrait.members[left], "other": portrait.members[right]}
            row |= {"cosine": group.cosine(left, right), "angle": group.degrees(left, right)}
            if group.signs is not None:
                row["sign_agreement"] = group.signs.agreement(left, right)
            rows.append(row)
    return rows


def tensor_rows(portrait: Portrait, recipe: Recipe | None = None) -> list[Row]:
    """The table with one row per tensor."""
    return [_row(portrait, _group(portrait, key, [key]), recipe) for key in sorted(portrait.grams)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
