from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from boom_ray.evaluation.compare import TaskScore, compare
from boom_ray.flows.pictures.canvas import GAIN, LOSS
from boom_ray.flows.pictures.comparison import EVEN, cost_quality, front, gain_bars, pareto, radar
from tests.flows.drawn import png

TYPES = ("Retrieval", "STS", "PairClassification", "MultilabelClassification", "Clustering", "InstructionReranking")
COORDINATE = st.integers(0, 5).map(float)
POINTS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.tuples(COORDINATE, COORDINATE), max_size=12)


def comparison(gains, tested=True, groups=("in_domain", "out_of_domain")):
    """A model that gains this much on the tasks, whose groups take turns."""
    runs = []
    for share in (0, 1):
        run = {}
        for place, (task, gain) in enumerate(gains.items()):
            noise = np.random.default_rng([place, share]).normal(0, 0.02, 60)
            queries = {f"s/{i}": 0.5 + share * gain + float(x - noise.mean()) for i, x in enumerate(noise)}
            group = groups[place % len(groups)]
            run[task] = TaskScore(task, "Retrieval", group, 0.5 + share * gain, queries if tested else None)
        runs.append(run)
    return compare(*runs, names=("base", "merged"), resamples=2000)


def named(figure):
    """Names written beside points, with their boxes in pixels."""
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if isinstance(text, Annotation) and text.get_text()]
    return {text.get_text(): text.get_window_extent() for text in texts}


def shared(one, other):
    width, height = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def test_bars_are_grouped_sorted_and_coloured_by_verdict():
    figure = gain_bars(comparison({"a": 0.1, "b": -0.1, "c": 0.0002, "d": 0.05, "e": 0.2}))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["e", "a", "c", "", "d", "b"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 10, 0.02, 5, -10])
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [GAIN, GAIN, EVEN, GAIN, LOSS]
    texts = [text.get_text() for text in axes.texts]
    assert "in domain\nmean +10.01" in texts and "out of domain\nmean -2.50" in texts and "+20.00" in texts
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "better",
        "worse",
        "tie",
        "95 % interval over queries",
    ]


def test_intervals_are_drawn_where_they_are_and_numbers_beyond_them():
    found = comparison({"a": 0.01, "b": -0.01}, groups=("in_domain",))
    axes = gain_bars(found).axes[0]
    drawn = [line.get_xdata().tolist() for line in axes.lines[:2]]
    assert drawn == [pytest.approx([100 * end for end in task.interval]) for task in found.tasks]
    ends = {text.get_text(): text.xy[0] for text in axes.texts if isinstance(text, Annotation)}
    assert ends == {"+1.00": pytest.approx(drawn[0][1]), "-1.00": pytest.approx(drawn[1][0])}


def test_untested_tasks_look_different():
    figure = gain_bars(comparison({"a": 0.1, "b": 0.0}, tested=False))
    assert {bar.get_hatch() for bar in figure.axes[0].patches} == {"////"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "better",
        "tie",
        "not tested, by score alone",
    ]


@pytest.mark.parametrize("count", [1, 60])
def test_names_and_numbers_of_bars_are_in_the_picture(count):
    figure = gain_bars(comparison({f"SomeTaskWithALongName{i}Retrieval.v2": 0.001 * i for i in range(count)}, False))
    figure.draw_without_rendering()
    axes, frame = figure.axes[0], figure.bbox
    boxes = [text.get_window_extent() for text in [*axes.get_yticklabels(), *axes.texts]]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(shared(*pair) for pair in itertools.pairwise(rows))


@pytest.mark.parametrize("models", [1, 20])
def test_radar_names_are_apart_and_in_the_picture(models):
    means = {f"model-with-a-name-{i}": dict.fromkeys(TYPES, 0.5 + 0.01 * i) for i in range(models)}
    figure = radar(means)
    names = named(figure)
    assert list(names) == list(TYPES)
    boxes = [*names.values(), figure.legends[0].get_window_extent()]
    assert not any(shared(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(shared(box, figure.bbox) == pytest.approx(box.width * box.height) for box in boxes)
    looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(looks)) == models
    low, high = figure.axes[0].get_ylim()
    assert low < 0.5 and high >= 0.5 + 0.01 * (models - 1)


def test_radar_polygons_are_closed_and_gaps_stay_gaps():
    axes = radar({"a": {"x": 0.1, "y": 0.2, "z": 0.3}, "b": {"x": 0.1, "z": 0.2}}).axes[0]
    np.testing.assert_equal(axes.lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.1])
    np.testing.assert_equal(axes.lines[1].get_ydata(), [0.1, np.nan, 0.2, 0.1])
    assert axes.lines[0].get_xdata()[1] == pytest.approx(2 * np.pi / 3)


def test_two_types_are_bars():
    axes = radar({"a": {"x": 0.25, "y": 0.5}, "b": {"x": 0.125}}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.125, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "a", "b"]
    assert [text.get_text() for text in axes.texts] == ["0.2500", "0.1250", "x", "0.5000", "y"]


@given(POINTS)
def test_the_front_is_what_no_other_beats(points):
    def beats(one, other):
        return one[0] >= other[0] and one[1] >= other[1] and one != other

    best = front(points)
    assert set(best) == {name for name, p in points.items() if not any(beats(q, p) for q in points.values())}
    assert [points[name] for name in best] == sorted(points[name] for name in best)
    mirrored = {name: (-x, y) for name, (x, y) in points.items()}
    assert set(front(mirrored, more_is_better=False)) == set(best)


def test_the_front_is_a_staircase_between_the_edges():
    axes = pareto({"a": (0.5, 0.8), "b": (0.75, 0.625), "c": (0.5, 0.5)}).axes[0]
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    line = axes.lines[0].get_xydata().tolist()
    assert line == [[left, 0.8], [0.5, 0.8], [0.5, 0.625], [0.75, 0.625], [0.75, bottom]]
    assert [points.get_offsets().tolist() for points in axes.collections] == [[[0.5, 0.8], [0.75, 0.625]], [[0.5, 0.5]]]


def test_cheap_and_good_models_are_on_the_front():
    axes = cost_quality({"a": (1.0, 0.5), "b": (2.0, 0.75), "c": (3.0, 0.75)}, "GPU hours").axes[0]
    (_, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    line = axes.lines[0].get_xydata().tolist()
    assert line == [[1, bottom], [1, 0.5], [2, 0.5], [2, 0.75], [right, 0.75]]
    assert axes.get_xlabel() == "GPU hours" and axes.get_xscale() == "linear"


@pytest.mark.parametrize(("costs", "scale"), [((1.0, 21.0), "log"), ((1.0, 20.0), "linear"), ((0.0, 90.0), "linear")])
def test_costs_that_differ_much_are_on_a_logarithmic_scale(costs, scale):
    points = {str(cost): (cost, 0.5) for cost in costs}
    assert cost_quality(points, "cost").axes[0].get_xscale() == scale


@pytest.mark.parametrize("seed", range(3))
def test_twenty_names_cover_neither_each_other_nor_points(seed):
    rng = np.random.default_rng(seed)
    points = {f"multi-slerp-{i}-{'x' * (i % 7)}": tuple(rng.normal(0.6, 0.02, 2).tolist()) for i in range(20)}
    figure = pareto(points)
    boxes = named(figure)
    assert boxes.keys() == points.keys()
    assert not any(shared(*pair) for pair in itertools.combinations(boxes.values(), 2))
    places = figure.axes[0].transData.transform(list(points.values()))
    assert not any(box.contains(*place) for box in boxes.values() for place in places)
    assert all(shared(box, figure.bbox) == pytest.approx(box.width * box.height) for box in boxes.values())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: radar({}),
        lambda: radar({"a": {}}),
        lambda: radar({"a": {"x": 0.0}}),
        lambda: pareto({}),
        lambda: pareto({"a": (0.5, 0.5), "b": (0.5, 0.5)}),
        lambda: cost_quality({}, "cost"),
        lambda: gain_bars(comparison({"a": 0.0}, tested=False)),
    ],
)
def test_little_data_still_gives_a_picture(draw):
    assert png(draw()).startswith(b"\x89PNG")


def test_the_same_data_give_the_same_bytes():
    points = {"a": (0.5, 0.8), "b": (0.75, 0.625), "c": (0.5, 0.5)}
    assert png(pareto(points)) == png(pareto(points))


def test_pyplot_and_its_global_state_are_not_imported():
    code = "import sys, boom_ray.flows.pictures.comparison; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
