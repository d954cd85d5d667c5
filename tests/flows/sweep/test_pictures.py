from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from boom_ray.flows.pictures.canvas import GAIN
from boom_ray.flows.pictures.comparison import EVEN
from boom_ray.flows.pictures.weights import HIGHLIGHT
from boom_ray.flows.sweep.pictures import BARS, importance_bars, sweep_figures, weighted_trials
from boom_ray.sweeps.importance import Importance
from boom_ray.sweeps.trials import Trial
from tests.flows.drawn import png
from tests.sweeps.planted import WEIGHTS, answer, failed, sweep, trial

pytestmark = pytest.mark.filterwarnings("error")
TWO = ("a", "b")
RATIOS = {"bags.ratios": {"ratios": {"grid": [0.2, 0.8]}}, **WEIGHTS}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def groups(figure: Figure, colour: str) -> list[list[list[float]]]:
    """Places of the dots of one colour."""
    found = figure.axes[0].collections
    return [dots.get_offsets().tolist() for dots in found if to_hex(dots.get_facecolor()[0]).upper() == colour]


def on_a_line(*pairs, names=("score",)):
    """Trials at a weight of the first of two members, with their objectives."""
    return [
        trial(number, *values, point={"merge.weights": [weight, 1 - weight]}, names=names)
        for number, (weight, *values) in enumerate(pairs)
    ]


def test_a_sweep_of_weights_has_its_pictures():
    trials = on_a_line(*[(place / 12, 0.5 - (place / 12 - 0.3) ** 2) for place in range(13)])
    figures = sweep_figures(trials, sweep(WEIGHTS), {"baseline": {"score": 0.25}})
    assert list(figures) == ["best_so_far.png", "importance.png", "weights_2.png"]
    assert [bar.get_width() for bar in figures["importance.png"].axes[0].patches] == [100]
    assert figures["weights_2.png"].axes[0].lines[1].get_xdata().tolist() == [place / 12 for place in range(13)]
    again = sweep_figures(list(reversed(trials)), sweep(WEIGHTS), {"baseline": {"score": 0.25}})
    assert {name: png(figure) for name, figure in figures.items()} == {name: png(one) for name, one in again.items()}


def test_scores_of_whole_tasks_are_not_shown_beside_those_of_smaller_ones():
    trials, marked = on_a_line((0.1, 0.5), (0.9, 0.25)), {"baseline": {"score": 0.375}}
    for rungs, shown in (([8, None], True), ([8, 16], False)):
        figure = sweep_figures(trials, sweep(WEIGHTS, rungs=rungs), marked)["best_so_far.png"]
        assert any("baseline" in text for text in legend(figure)) == shown


def test_every_objective_has_its_pictures():
    for names, pareto in ((TWO, ["pareto.png"]), ("abc", ["pareto_a_b.png", "pareto_a_c.png", "pareto_b_c.png"])):
        trials = on_a_line((0.1, *range(len(names))), (0.9, *reversed(range(len(names)))), names=names)
        figures = sweep_figures(trials, sweep(WEIGHTS, names=names), {})
        assert sorted(figures) == sorted(
            [f"{kind}_{name}.png" for name in names for kind in ("best_so_far", "weights_2")] + pareto
        )
        assert {name.split("_")[-1][:-4]: figures[name].axes[0].get_ylabel() for name in figures if "best" in name} == {
            name: f"{name}: mean of the tasks' main scores" for name in names
        }


def test_numbers_of_members_have_pictures_of_their_own_and_one_member_has_none():
    points = [[1.0], [0.5, 0.5], [0.25, 0.25, 0.5], [0.75, 0.25], [0.25] * 4]
    trials = [
        trial(number, number / 10, point={"bags.ratios": [0.8] * len(weights), "merge.weights": weights})
        for number, weights in enumerate(points)
    ]
    config = sweep(RATIOS)
    figures = sweep_figures([*trials, failed(9, "bad", point=trials[1].point)], config, {})
    assert sorted(figures) == ["best_so_far.png", "weights_2.png", "weights_3.png", "weights_4.png"]
    dots = figures["weights_2.png"].axes[0].collections[0]
    assert dots.get_offsets().tolist() == [[0.5, pytest.approx(0.1)], [0.75, pytest.approx(0.3)]]
    assert figures["weights_2.png"].axes[0].get_xlabel() == "weight of member 1; the rest is member 2's"
    assert not weighted_trials(trials, config, config.sweep.objectives[0])["weights_2"].alone


def test_parts_of_the_model_have_pictures_of_their_own():
    config = sweep({"merge.weights": {"simplex": {"layers": ["0-5"]}}})
    point = {"merge.weights": {"0-5": [0.25, 0.75], "rest": [1.0, 0.0]}}
    figures = sweep_figures([trial(0, 0.5, point=point)], config, {})
    titles = {name: figure.axes[0].get_title() for name, figure in figures.items() if "weights" in name}
    assert titles == {
        "weights_2_part1.png": "Score over the weights of two members, part 0-5",
        "weights_2_part2.png": "Score over the weights of two members, part rest",
    }


def test_trials_are_told_apart_by_the_method_that_was_searched_or_the_run_s():
    space = {"merge.method": {"choice": ["ties", "linear"]}, **WEIGHTS}
    trials = [
        trial(number, 0.5, point={"merge.method": method, "merge.weights": [0.5, 0.5]})
        for number, method in enumerate(("ties", "linear"))
    ]
    config = sweep(space)
    assert weighted_trials(trials, config, config.sweep.objectives[0])["weights_2"].methods == ["ties", "linear"]
    config = sweep(WEIGHTS)
    assert weighted_trials(on_a_line((0.5, 0.5)), config, config.sweep.objectives[0])["weights_2"].methods == [
        "multislerp"
    ]


def test_the_front_is_joined_and_the_chosen_and_marked_models_stand_out():
    trials = on_a_line((0, 0.0, 1.0), (0.5, 0.75, 0.75), (1, 1.0, 0.0), (0.2, 0.5, 0.5), names=TWO)
    marked = {"equal": {"a": 0.25, "b": 0.5}, "baseline": {"a": 0.5}}
    figure = sweep_figures(trials, sweep(WEIGHTS, names=TWO), marked)["pareto.png"]
    axes = figure.axes[0]
    assert groups(figure, EVEN) == [[[0.5, 0.5]]]
    assert groups(figure, GAIN) == [[[0, 1], [0.75, 0.75], [1, 0]]]
    assert groups(figure, HIGHLIGHT) == [[[0.75, 0.75]]]
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    corners = [[left, 1], [0, 1], [0, 0.75], [0.75, 0.75], [0.75, 0], [1, 0], [1, bottom]]
    assert axes.lines[0].get_xydata().tolist() == corners
    assert [0.25, 0.5] in [dots.get_offsets()[0].tolist() for dots in axes.collections]
    assert sorted(legend(figure)) == ["Pareto front (3)", "beaten by another (1)", "chosen: trial 1", "equal"]
    assert axes.get_xlabel().startswith("a: ") and axes.get_ylabel().startswith("b: ")


def test_trials_far_below_are_counted_and_marked_models_are_always_seen():
    pairs = [(0.1, 0.6 + place / 100, 0.6 - place / 100) for place in range(9)]
    trials = on_a_line(*pairs, (0.5, 0.1, 0.1), names=TWO)
    figure = sweep_figures(trials, sweep(WEIGHTS, names=TWO), {"base": {"a": 0.3, "b": 0.5}})["pareto.png"]
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert 0.1 < left < 0.3 and 0.4 < bottom < 0.5 and 0.68 < right < 0.75 and 0.6 < top < 0.65
    assert "beaten by another (1, 1 outside)" in legend(figure)


def test_with_three_objectives_the_front_of_all_is_shown_in_pairs():
    trials = on_a_line((0, 0.0, 0.0, 1.0), (0.5, 0.5, 0.5, 0.5), (1, 0.25, 0.25, 0.25), names="abc")
    figure = sweep_figures(trials, sweep(WEIGHTS, names="abc"), {})["pareto_a_b.png"]
    assert groups(figure, GAIN) == [[[0, 0], [0.5, 0.5]]]
    assert groups(figure, EVEN) == [[[0.25, 0.25]]] and not figure.axes[0].lines


def test_the_best_so_far_is_over_the_cost_of_all_trials():
    trials = [
        trial(0, 0.5, seconds=60), failed(1, "bad", answer(0.9, seconds=119.5)), trial(2, 0.25, seconds=60),
        trial(3, 0.75, seconds=60), Trial(4, {}, (answer(0.9, seconds=60),), "stopped"),
    ]  # fmt: skip
    figure = sweep_figures(trials, sweep(WEIGHTS), {"baseline": {"score": 0.6}, "other": {}})["best_so_far.png"]
    axes = figure.axes[0]
    line, step = axes.lines
    assert step.get_xydata().tolist() == [[1, 0.5], [3, 0.5], [4, 0.5], [5, 0.75], [6, 0.75]]
    assert step.get_drawstyle() == "steps-post" and set(line.get_ydata()) == {0.6}
    assert axes.collections[0].get_offsets().tolist() == [[1, 0.5], [4, 0.25], [5, 0.75]]
    assert axes.get_xlabel() == "computing time of merges and evaluations (minutes)"
    assert {"baseline (0.6000)", "best so far (0.7500)", "one trial"} == set(legend(figure))
    (above,) = axes.child_axes
    assert above.get_xlabel() == "trials"
    assert above.get_xticks().tolist() == [6, 5, 4, 3, 1]
    assert [text.get_text() for text in above.get_xticklabels()] == ["5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("seconds", "unit"), [(0.5, "seconds"), (119, "seconds"), (120, "minutes"), (7199, "minutes"), (7200, "hours")]
)
def test_costs_are_in_a_fitting_unit(seconds, unit):
    figure = sweep_figures([trial(0, 0.5, seconds=seconds)], sweep(WEIGHTS), {})["best_so_far.png"]
    assert f"({unit})" in figure.axes[0].get_xlabel()
    assert png(figure)


def test_numbers_of_trials_above_do_not_touch():
    seconds = np.random.default_rng(0).exponential(1, 300) ** 4
    trials = [trial(number, 0.5, seconds=float(cost)) for number, cost in enumerate(seconds)]
    figure = sweep_figures(trials, sweep(WEIGHTS), {})["best_so_far.png"]
    figure.draw_without_rendering()
    labels = figure.axes[0].child_axes[0].get_xticklabels()
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert len(boxes) > 3 and all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_trials_that_cost_nothing_are_counted_instead():
    trials = [trial(0, 0.5, seconds=0), trial(1, 0.75, seconds=0)]
    axes = sweep_figures(trials, sweep(WEIGHTS), {})["best_so_far.png"].axes[0]
    assert (axes.get_xlabel(), axes.child_axes) == ("trials", [])
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]


def test_a_collapsed_trial_is_an_arrow_at_the_edge():
    trials = [trial(n, score) for n, score in enumerate([0.6, 0.61, 0.62, 0.63, 0.1])]
    figure = sweep_figures(trials, sweep(WEIGHTS), {"base": {"score": 0.5}})["best_so_far.png"]
    assert 0.45 < figure.axes[0].get_ylim()[0] < 0.5
    assert "lower, not shown (1)" in legend(figure)


def test_bars_are_the_shares_with_many_small_ones_together():
    figure = importance_bars(Importance({"x": 0.75, "y": 0.25}, 0.62, 1, 34), "score")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [75, 25]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in axes.texts] == ["75.0", "25.0"]
    assert "62 % of the order" in axes.get_title() and "34 trials at rung 1" in axes.get_title()
    many = {f"p{n}": 1 / 50 for n in range(50)}
    axes = importance_bars(Importance(many, 0.5, 0, 99), "score").axes[0]
    assert len(axes.patches) == BARS
    assert axes.get_yticklabels()[-1].get_text() == "31 others"
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(100)


def test_without_a_finished_trial_there_are_no_pictures():
    for names in (("score",), TWO):
        trials = [failed(0, "bad"), Trial(1, {}, (answer(*[0.5] * len(names), names=names),), "stopped")]
        assert sweep_figures(trials, sweep(WEIGHTS, names=names), {}) == {}
    assert sweep_figures([], sweep(WEIGHTS), {}) == {}
