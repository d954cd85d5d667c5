from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from boom_ray.flows.pictures.canvas import GAIN, LOSS
from boom_ray.flows.pictures.run import bag_overlap, loss_curves, running_mean, task_gains
from tests.flows.drawn import png, texts


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.integers(1, 50))
def test_the_running_mean_is_the_mean_of_what_came_before(values, width):
    expected = [np.mean(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(running_mean(np.array(values), width), expected, atol=1e-9)


def test_every_member_has_its_curve_in_order_of_steps():
    figure = loss_curves({"bag-20": [(2, 0.5), (1, 1.0)], "bag-40": [(1, 0.9)], "none": []})
    (axes,) = figure.axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "bag-20": [[1, 1.0], [2, 0.5]],
        "bag-40": [[1, 0.9]],
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "InfoNCE loss (nats)")


def test_no_two_of_many_members_look_the_same():
    figure = loss_curves({f"bag-{i}": [(0, 1.0), (1, 0.5)] for i in range(20)})
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == 20


def test_gains_are_grouped_sorted_and_signed():
    rows = [
        ("a", "in-domain", 0.01),
        ("b", "out-of-domain", -0.02),
        ("c", "in-domain", 0.03),
        ("d", "in-domain", -0.01),
    ]
    figure = task_gains(rows)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a", "d", "", "b"]
    assert [round(bar.get_width(), 4) for bar in axes.patches] == [0.03, 0.01, -0.01, -0.02]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [GAIN, GAIN, LOSS, LOSS]
    assert "in-domain\nmean +0.0100" in texts(figure) and "out-of-domain\nmean -0.0200" in texts(figure)


def test_overlap_shows_every_number():
    figure = bag_overlap(["a", "b"], [[1.0, 0.25], [0.5, 1.0]])
    assert texts(figure) == ["100", "25", "50", "100"]
    assert figure.axes[0].images[0].get_array().tolist() == [[1.0, 0.25], [0.5, 1.0]]


@pytest.mark.parametrize("figure", [loss_curves({}), task_gains([]), bag_overlap(["one"], [[1.0]])])
def test_little_data_still_gives_a_picture(figure):
    assert png(figure).startswith(b"\x89PNG")


def test_the_same_data_give_the_same_bytes():
    assert png(task_gains([("a", "g", 0.1)])) == png(task_gains([("a", "g", 0.1)]))


def test_pyplot_and_its_global_state_are_not_imported():
    code = "import sys, boom_ray.flows.pictures.canvas; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
