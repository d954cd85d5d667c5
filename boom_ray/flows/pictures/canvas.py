"""The ground of all pictures: matplotlib figures without pyplot's global state.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart with any kind of colour vision; curves
also differ by line style.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
GAIN, LOSS = "#0072B2", "#D55E00"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of the given size in inches with its own canvas, and its axes."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
