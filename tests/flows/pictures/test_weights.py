from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from boom_ray.flows.pictures.weights import (
    CORNERS,
    HIGHLIGHT,
    WeightedTrials,
    _marker,
    score_in_triangle,
    score_on_axes,
    score_over_weight,
    score_over_weights,
    shown_from,
)
from tests.flows.drawn import png

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error")]
NAMES = ("bag-20", "bag-40", "bag-60", "bag-80", "bag-100")


def trials(weights, scores, methods=None, **more):
    weights = np.array(weights, dtype=float)
    methods = methods or ["linear"] * len(scores)
    members = NAMES[: weights.shape[1]]
    numbers = range(10, 10 + len(scores))
    return WeightedTrials(members, weights, np.array(scores, float), methods, numbers, "score: mean", **more)


def on_a_line(*firsts):
    return [[first, 1 - first] for first in firsts]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def stars(figure: Figure) -> list[list[float]]:
    found = [one for one in figure.axes[0].collections if to_hex(one.get_facecolor()[0]).upper() == HIGHLIGHT]
    return [one.get_offsets()[0].tolist() for one in found]


def test_two_members_are_a_line_by_method_with_the_best_marked():
    figure = score_over_weight(trials(on_a_line(0.25, 0.5, 0.75), [0.5, 0.75, 0.625], ["linear", "ties", "linear"]))
    axes = figure.axes[0]
    assert [dots.get_offsets().tolist() for dots in axes.collections[:2]] == [
        [[0.25, 0.5], [0.75, 0.625]],
        [[0.5, 0.75]],
    ]
    assert stars(figure) == [[0.5, 0.75]]
    assert sorted(legend(figure)) == ["best: trial 11 (0.7500)", "equal weights", "linear", "ties"]
    assert axes.get_xlabel() == "weight of bag-20; the rest is bag-40's"
    assert (axes.get_ylabel(), len(axes.lines)) == ("score: mean", 1)


def test_a_curve_joins_trials_between_which_only_the_weight_differs():
    figure = score_over_weight(trials(on_a_line(0.75, 0.25, 0.5), [0.1, 0.2, 0.3], alone=True))
    assert figure.axes[0].lines[1].get_xydata().tolist() == [[0.25, 0.2], [0.5, 0.3], [0.75, 0.1]]


def test_the_first_of_equals_is_the_best():
    assert stars(score_over_weight(trials(on_a_line(0.25, 0.75), [0.5, 0.5]))) == [[0.25, 0.5]]


def test_three_members_lie_in_a_triangle():
    corner, side, middle = [0, 0, 1], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]
    figure = score_in_triangle(trials([corner, side, middle], [0.25, 0.5, 0.75]))
    dots = figure.axes[0].collections[0]
    np.testing.assert_allclose(dots.get_offsets(), [CORNERS[2], CORNERS[:2].mean(axis=0), CORNERS.mean(axis=0)])
    assert dots.get_array().tolist() == [0.25, 0.5, 0.75]
    assert stars(figure) == [pytest.approx(CORNERS.mean(axis=0).tolist())]
    assert {text.get_text(): text.xy for text in figure.axes[0].texts if text.get_text() in NAMES} == {
        name: pytest.approx(place) for name, place in zip(NAMES, CORNERS.tolist(), strict=False)
    }
    assert figure.axes[1].get_ylabel() == "score: mean"


def test_the_grid_of_the_triangle_says_each_member_s_weight():
    axes = score_in_triangle(trials([[1, 0, 0]], [0.5])).axes[0]
    lines = [line.get_xydata() for line in axes.lines[1:]]
    marks = [text for text in axes.texts if text.get_text() not in NAMES]
    assert len(lines) == len(marks) == 9
    for place, (line, mark) in enumerate(zip(lines, marks, strict=True)):
        weights = np.linalg.solve(np.vstack([CORNERS.T, np.ones(3)]), np.vstack([line.T, np.ones(2)]))
        assert weights[place // 3].tolist() == pytest.approx([float(mark.get_text())] * 2)
        assert mark.xy == pytest.approx(line[0])


def test_methods_in_the_triangle_differ_by_marker_and_share_their_colours():
    figure = score_in_triangle(trials(np.eye(3), [0.25, 0.5, 0.75], ["a", "b", "a"]))
    first, _, second = figure.axes[0].collections[:3]
    assert first.norm is second.norm and (first.norm.vmin, first.norm.vmax) == (0.25, 0.75)
    assert (len(first.get_offsets()), len(second.get_offsets())) == (2, 1)
    assert first.get_paths()[0].vertices.shape != second.get_paths()[0].vertices.shape
    assert sorted(legend(figure)) == ["a", "b", "best: trial 12 (0.7500)"]


@pytest.mark.parametrize("count", [4, 5])
def test_more_members_are_lines_the_best_above(count):
    weights = np.random.default_rng(0).dirichlet(np.ones(count), 6)
    scores = [0.1, 0.6, 0.3, 0.5, 0.2, 0.4]
    figure = score_on_axes(trials(weights, scores))
    axes = figure.axes[0]
    lines = axes.collections[0]
    assert lines.get_array().tolist() == sorted(scores)
    for segment, row in zip(lines.get_segments(), np.argsort(scores), strict=True):
        np.testing.assert_allclose(segment, np.column_stack([range(count), weights[row]]))
    np.testing.assert_allclose(axes.lines[1].get_ydata(), weights[1])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(NAMES[:count])
    assert set(axes.lines[0].get_ydata()) == {1 / count}


def test_the_number_of_members_decides():
    titles = [score_over_weights(trials([[1, *[0] * (m - 1)]], [0.5])).axes[0].get_title() for m in (2, 3, 5)]
    assert titles == [f"Score over the weights of {words} members" for words in ("two", "three", "5")]
    assert score_over_weights(trials([[1, 0]], [0.5], part="0-5")).axes[0].get_title().endswith(", part 0-5")


def test_a_score_that_is_far_lower_is_an_arrow_at_the_edge():
    scores = [0.6, 0.61, 0.62, 0.63, 0.1]
    figure = score_over_weight(trials(on_a_line(0, 0.25, 0.5, 0.75, 1), scores))
    axes = figure.axes[0]
    assert 0.55 < axes.get_ylim()[0] < 0.6 and axes.get_ylim()[1] > 0.63
    assert axes.collections[-1].get_offsets().tolist() == [[1.0, axes.get_ylim()[0]]]
    assert "lower, not shown (1)" in legend(figure)
    triangle = score_in_triangle(trials(np.eye(3)[[0, 1, 2, 0, 1]], scores))
    assert triangle.axes[0].collections[0].norm.vmin == 0.6


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_no_score_of_the_better_three_quarters_is_cut_off(scores):
    low = shown_from(scores)
    assert low in scores
    cut = [score for score in scores if score < low]
    assert 4 * len(cut) <= len(scores)
    assert shown_from([0.5] * len(scores)) == 0.5


def test_no_two_of_many_methods_look_the_same():
    figure = score_over_weight(trials(on_a_line(*[0.5] * 21), [0.5] * 21, [f"method-{n}" for n in range(21)]))
    colours = [to_hex(dots.get_facecolor()[0]) for dots in figure.axes[0].collections[:21]]
    assert len({(colour, _marker(place)) for place, colour in enumerate(colours)}) == 21


@pytest.mark.parametrize("members", [2, 3, 4])
def test_one_trial_and_equal_scores_still_give_a_picture(members):
    for count in (1, 3):
        one = trials([[1 / members] * members] * count, [0.5] * count)
        assert png(score_over_weights(one)).startswith(b"\x89PNG")
        assert png(score_over_weights(one)) == png(score_over_weights(one))


def test_long_names_of_members_and_methods_are_in_the_picture():
    names = [f"a-member-with-quite-a-long-name-{n}" for n in range(3)]
    for m in (2, 3):
        one = WeightedTrials(names[:m], np.eye(m), np.arange(m) / 10, ["m" * 20] * m, range(m), "score: mean")
        figure = score_over_weights(one)
        figure.draw_without_rendering()
        axes, frame = figure.axes[0], figure.bbox
        boxes = [text.get_window_extent() for text in (*axes.texts, axes.xaxis.label, *figure.legends[0].get_texts())]
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_pyplot_and_its_global_state_are_not_imported():
    code = "import sys, boom_ray.flows.sweep.pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
