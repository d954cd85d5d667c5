"""Pictures of the geometry report as matplotlib figures; see `boom_ray.merging.geometry.report` for what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boom_ray.flows.pictures.canvas import COLOURS, STYLES, canvas

ANNOTATED = 200
"""Most cells of a heat map that show their numbers."""
NEAR = 0.95
"""Cosines that are all larger fill the scale of colours by themselves."""


def cosines_by_layer(
    layers: Sequence[str], pairs: Sequence[str], cosines: Sequence[Sequence[float | None]], what: str
) -> Figure:
    """Heat map of cosines, groups of tensors (rows) by pairs of members (columns).

    Args:
        layers: groups, from the embeddings down.
        pairs: pairs of members.
        cosines: [layers, pairs]; None where a member did not change a group.
        what: whose cosines they are, for the title.
    """
    values = _array(cosines, len(layers), len(pairs))
    figure, axes = canvas(3.2 + 0.62 * len(pairs), 1.9 + 0.27 * len(layers))
    _heat_map(figure, axes, values, "cosine")
    axes.set_xticks(range(len(pairs)), pairs, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(layers)), layers)
    axes.set(title=f"Cosine between {what}")
    return figure


def cosine_matrix(names: Sequence[str], cosines: Sequence[Sequence[float | None]], what: str) -> Figure:
    """Heat map of cosines between all members over the whole model.

    Args:
        names: the members.
        cosines: [members, members].
        what: whose cosines they are, for the title.
    """
    values = _array(cosines, len(names), len(names))
    side = 2.4 + 0.62 * len(names)
    figure, axes = canvas(side + 0.9, side)
    _heat_map(figure, axes, values, "cosine")
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(title=f"Cosine between {what},\nwhole model")
    return figure


def lengths_by_layer(layers: Sequence[str], lengths: Mapping[str, Sequence[float]], unit: str) -> Figure:
    """Length of every member's vector, one curve per member.

    Args:
        layers: groups of tensors, from the embeddings down.
        lengths: member to one length per group.
        unit: what the length is measured in, for the axis.
    """
    figure, axes = canvas(max(6.0, 2.0 + 0.32 * len(layers)), 4.2)
    for index, (name, values) in enumerate(lengths.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        axes.plot(range(len(layers)), values, color=colour, linestyle=style, marker="o", markersize=3, label=name)
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 1.1 * max((max(one, default=0.0) for one in lengths.values()), default=0.0) or 1.0)
    axes.set(title="How far the members went, by layer", ylabel=unit)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.lines:
        outside = len(lengths) > 6
        axes.legend(frameon=False, **({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if outside else {}))
    return figure


def _heat_map(figure: Figure, axes: Axes, values: np.ndarray, label: str) -> None:
    """Cells coloured from the least value (or 0) to 1, with their numbers if there is room; empty ones stay grey."""
    known = values[np.isfinite(values)]
    least = float(known.min()) if known.size else 0.0
    near = NEAR < least < 1  # whole weights of fine-tunes: only their distance from 1 tells them apart
    low, digits = (least, 5) if near else (min(0.0, least), 2)
    axes.set_facecolor("#BBBBBB")
    image = axes.imshow(values, vmin=low, vmax=1, cmap="cividis", aspect="auto")
    if values.size <= ANNOTATED:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "black" if value > low + 0.55 * (1 - low) else "white"
                text = f"{value:.{digits}f}".replace("-0.00", "0.00")
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label=label, fraction=0.046)


def _array(cells: Sequence[Sequence[float | None]], rows: int, columns: int) -> np.ndarray:
    return np.array([[np.nan if cell is None else cell for cell in row] for row in cells], float).reshape(rows, columns)
