"""The geometry report of a merge: gathered, put into MLflow as tables and pictures, and shortened for the screen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from boom_ray.config import MergeConfig
from boom_ray.flows.pictures.geometry import cosine_matrix, cosines_by_layer, lengths_by_layer
from boom_ray.flows.workspace import Workspace
from boom_ray.merging.geometry.portrait import Portrait, portrait
from boom_ray.merging.geometry.report import Group, Row, groups, pair_rows, table, tensor_rows
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import Recipe, resolve
from boom_ray.tracking import Run

FOLDER = "geometry"
SHORT = (
    *("cosine_mean", "angle_most", "relative_length", "sign_agreement"),
    *("kept_linear", "kept_sign_election", "kept_recipe"),
)
"""Columns that are shown on the screen; of the whole model they are metrics in MLflow too."""


def report_geometry(space: Workspace, run: Run, inputs: MergeInputs, config: MergeConfig) -> list[Row]:
    """Gather what is not in the store, and put the report into a run below ``geometry/``.

    Args:
        space: store, and who listens to progress.
        run: takes ``by_layer.csv``, ``pairs.csv``, ``tensors.csv``, pictures, and the whole model's figures as metrics.
        inputs: members, and the base if there is one.
        config: the recipe, whose effect is predicted.

    Returns:
        The rows of ``by_layer.csv``.

    Raises:
        MergeError: members that do not fit together or hold NaN.
    """
    seen = portrait(space.store, inputs, config, space)
    recipe, found = resolve(config, inputs.members), groups(seen)
    rows = table(seen, recipe, found)
    run.table(f"{FOLDER}/by_layer.csv", rows)
    run.table(f"{FOLDER}/pairs.csv", pair_rows(seen, found))
    run.table(f"{FOLDER}/tensors.csv", tensor_rows(seen, recipe))
    whole = {name: value for name in SHORT if isinstance(value := rows[-1].get(name), float)}
    run.metrics({f"{FOLDER}/{name}": value for name, value in whole.items()})
    _pictures(run, seen, found, recipe)
    return rows


def _pictures(run: Run, seen: Portrait, found: Sequence[Group], recipe: Recipe) -> None:
    what = "the members' differences from the base" if seen.about_base else "the members' weights"
    names, layers = [group.name for group in found], found[:-1]
    places = range(len(seen.members))
    pairs = list(itertools.combinations(places, 2))
    if pairs:
        labels = [f"{seen.members[left]} · {seen.members[right]}" for left, right in pairs]
        cosines = [[group.cosine(*pair) for pair in pairs] for group in found]
        run.figure(f"{FOLDER}/cosines_by_layer.png", cosines_by_layer(names, labels, cosines, what))
        square = [[found[-1].cosine(left, right) for right in places] for left in places]
        run.figure(f"{FOLDER}/cosines.png", cosine_matrix(seen.members, square, what))
    unit = "length of the difference / length of the base" if seen.about_base else "length of the weights"
    lengths = {
        name: [group.space.norms[place] / (group.base_norm or 1.0) for group in layers]
        for place, name in enumerate(seen.members)
    }
    run.figure(f"{FOLDER}/lengths_by_layer.png", lengths_by_layer([group.name for group in layers], lengths, unit))


def short_table(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The report's columns that fit on a screen; those without any value are left out."""
    shown = [name for name in SHORT if any(row.get(name) is not None for row in rows)]
    return [{"group": row["group"], **{name: _shown(row.get(name)) for name in shown}} for row in rows]


def _shown(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
