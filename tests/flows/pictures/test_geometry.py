from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from boom_ray.flows.geometry import short_table
from boom_ray.flows.pictures.geometry import cosine_matrix, cosines_by_layer, lengths_by_layer
from tests.flows.drawn import png, texts


def test_the_heat_map_has_layers_down_and_pairs_across():
    figure = cosines_by_layer(["embeddings", "layer 0"], ["a · b", "a · c"], [[0.5, -0.001], [None, 1.0]], "members")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embeddings", "layer 0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a · b", "a · c"]
    assert texts(figure) == ["0.50", "0.00", "1.00"], "what was not changed has no number"
    assert axes.get_title() == "Cosine between members"


def test_cosines_near_one_are_told_apart():
    figure = cosine_matrix(["a", "b"], [[1.0, 0.99987], [0.99987, 1.0]], "weights")
    assert texts(figure) == ["1.00000", "0.99987", "0.99987", "1.00000"]
    assert figure.axes[0].images[0].get_clim() == (0.99987, 1)


def test_negative_cosines_are_on_the_scale():
    assert cosine_matrix(["a", "b"], [[1.0, -0.6], [-0.6, 1.0]], "x").axes[0].images[0].get_clim() == (-0.6, 1)


def test_many_cells_have_no_numbers():
    names = [f"m{number}" for number in range(20)]
    assert texts(cosine_matrix(names, np.eye(20).tolist(), "x")) == []


def test_every_member_has_its_curve_from_zero_up():
    figure = lengths_by_layer(["embeddings", "layer 0"], {"a": [0.1, 0.2], "b": [0.3, 0.0]}, "relative length")
    (axes,) = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == {"a": [0.1, 0.2], "b": [0.3, 0.0]}
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 0.3
    assert axes.get_ylabel() == "relative length"


def test_no_two_of_many_members_look_the_same():
    axes = lengths_by_layer(["x"], {f"m{number}": [1.0] for number in range(20)}, "length").axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 20


@pytest.mark.parametrize(
    "figure",
    [
        lengths_by_layer([], {}, "x"),
        lengths_by_layer(["a"], {"m": [0.0]}, "x"),
        cosine_matrix(["a"], [[None]], "x"),
        cosines_by_layer(["a"], ["b · c"], [[None]], "x"),
    ],
)
def test_little_data_still_gives_a_picture(figure):
    assert png(figure).startswith(b"\x89PNG")


def test_pyplot_and_its_global_state_are_not_imported():
    code = "import sys, boom_ray.flows.pictures.geometry; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_short_table_leaves_out_what_is_not_known():
    rows = [{"group": "layer 0", "cosine_mean": 0.123456, "sign_agreement": None, "kept_linear": None, "length a": 3.0}]
    assert short_table(rows) == [{"group": "layer 0", "cosine_mean": "0.1235"}]
