from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.cluster import hierarchy

from boom_ray.flows.pictures.canvas import GAIN, LOSS
from boom_ray.flows.pictures.comparison import EVEN
from boom_ray.flows.study.pictures import dendrogram, difference_intervals, study_figures, synergy_matrix
from boom_ray.studies.estimates import student_interval
from boom_ray.studies.results import ArmResult, Cost, StudyResult
from tests.flows.drawn import png
from tests.studies.planted import scores, study

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error")]
FOUR = study(
    {
        "bls": [[0.5, 0.5, 0.6, 0.6], [0.52, 0.52, 0.6, 0.6]],
        "up": [[0.54, 0.56, 0.6, 0.61], [0.5602, 0.5802, 0.6, 0.61]],
        "down": [[0.45, 0.45, 0.7, 0.7], [0.4702, 0.4702, 0.6, 0.6]],
        "gone": [],
    },
    base=[0.1] * 4,
)


def dots(axes):
    """(places, colour) of every group of dots."""
    found = [one for one in axes.collections if not hasattr(one, "get_segments")]
    return [(one.get_offsets().tolist(), to_hex(one.get_facecolor()[0]).upper()) for one in found]


def bars(axes):
    """Ends of all error bars, rounded: one list of two points each."""
    found = [one for one in axes.collections if hasattr(one, "get_segments")]
    return [np.round(segment, 6).tolist() for one in found for segment in one.get_segments()]


def cells(axes):
    return [text.get_text() for text in axes.texts]


def test_a_study_has_its_pictures():
    figures = study_figures(FOUR)
    assert list(figures) == [
        "differences.png",
        "tasks.png",
        "domains.png",
        "cost_in_domain.png",
        "cost_out_of_domain.png",
    ]
    drawn, again = ({name: png(one) for name, one in found.items()} for found in (figures, study_figures(FOUR)))
    assert drawn == again


def test_pictures_that_need_more_than_there_is_are_left_out():
    assert list(study_figures(study({"bls": [[0.5, 0.6]]}))) == [
        "domains.png",
        "cost_in_domain.png",
        "cost_out_of_domain.png",
    ]
    assert list(study_figures(study({"bls": [[0.5]], "new": [[0.5]]}, in_domain=1))) == [
        "differences.png",
        "tasks.png",
        "cost_in_domain.png",
    ]
    assert study_figures(study({"bls": [], "new": []}, seeds=(0,))) == {}


def test_differences_are_side_by_side_with_their_intervals():
    inside, outside = difference_intervals(FOUR).axes
    assert [axes.get_title() for axes in (inside, outside)] == ["In domain", "Out of domain"]
    assert [label.get_text() for label in inside.get_yticklabels()] == ["up", "down"]
    assert inside.get_xlim() == outside.get_xlim()
    _, up, down = inside.lines
    assert up.get_xdata() == pytest.approx([100 * end for end in student_interval([0.05, 0.0502])])
    assert set(up.get_ydata()) == {0} and set(down.get_ydata()) == {1}
    seeds, mean, *_ = dots(inside)
    assert seeds == ([[pytest.approx(5.0), 0.22], [pytest.approx(5.02), 0.22]], EVEN)
    assert mean == ([[pytest.approx(5.01), 0]], GAIN)
    assert [colour for _, colour in dots(inside)[1::2]] == [GAIN, LOSS]
    assert cells(inside) == ["+5.01\n+4.88 to +5.14", "-4.99\n-5.12 to -4.86"]


def test_differences_within_noise_and_without_an_interval_are_grey():
    outside = difference_intervals(FOUR).axes[1]
    assert [colour for _, colour in dots(outside)[1::2]] == [EVEN, EVEN]  # all seeds alike, and 0 to 10
    assert cells(outside) == ["+0.50", "+5.00\n-58.53 to +68.53"]
    assert len(outside.lines) == 2  # zero and one interval


def test_an_arm_without_common_tasks_in_a_group_has_an_empty_row_there():
    runs = (
        ArmResult("bls", 0, scores([0.5, 0.5]), Cost(1, 1, 1)),
        ArmResult("a", 0, scores([0.6], in_domain=1), Cost(1, 1, 1)),
        ArmResult("b", 0, scores([0.6, 0.7]), Cost(1, 1, 1)),
    )
    one = StudyResult("s", dict.fromkeys(("bls", "a", "b"), ""), (0,), "bls", runs)
    inside, outside = difference_intervals(one).axes
    assert cells(inside) == ["+10.00", "+10.00"] and cells(outside) == ["+20.00"]
    assert outside.texts[0].get_position()[1] == 1
    shown = cells(study_figures(one)["tasks.png"].axes[0])
    assert shown == ["+10.00", "+10.00", "+20.00", "in domain", "out of domain"]


def test_domains_have_points_a_front_and_the_spread_over_seeds():
    axes = study_figures(FOUR)["domains.png"].axes[0]
    front, beaten = dots(axes)[-2:]
    assert front == ([[pytest.approx(46.01), pytest.approx(65)], [pytest.approx(56.01), pytest.approx(60.5)]], GAIN)
    assert beaten == ([[pytest.approx(51), 60]], EVEN)
    half = 100 * np.std([0.5, 0.52], ddof=1)
    assert [[round(51 - half, 6), 60], [round(51 + half, 6), 60]] in bars(axes)
    assert [[51, 60], [51, 60]] in bars(axes)
    half = 100 * np.std([0.7, 0.6], ddof=1)
    assert [[46.01, round(65 - half, 6)], [46.01, round(65 + half, 6)]] in bars(axes)
    assert {text for text in cells(axes) if text} == {"bls", "up", "down"}


def test_cost_is_in_full_runs():
    axes = study_figures(FOUR)["cost_in_domain.png"].axes[0]
    assert dots(axes)[-2:] == [
        ([[1, pytest.approx(51)], [2, pytest.approx(56.01)]], GAIN),
        ([[3, pytest.approx(46.01)]], EVEN),
    ]
    assert axes.get_xlabel() == "training (full runs)"
    assert axes.get_ylabel() == "mean score in domain (points of 100)"
    half = 100 * np.std([0.5, 0.52], ddof=1)
    assert [[1, round(51 - half, 6)], [1, round(51 + half, 6)]] in bars(axes)


def test_one_seed_has_no_bars():
    figures = study_figures(study({"bls": [[0.5, 0.6]], "new": [[0.6, 0.7]]}))
    assert not any(bars(figures[name].axes[0]) for name in ("domains.png", "cost_in_domain.png"))
    assert len(figures["differences.png"].axes[0].lines) == 1


def test_every_task_has_a_cell_per_arm_and_groups_are_parted():
    axes = study_figures(FOUR)["tasks.png"].axes[0]
    shown = axes.images[0].get_array()
    wanted = [[4.01, 6.01, 0, 1], [-4.99, -4.99, 5, 5]]
    assert shown.tolist() == [pytest.approx(row, abs=1e-9) for row in wanted]
    assert axes.images[0].get_clim() == pytest.approx((-6.01, 6.01))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["t0", "t1", "t2", "t3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up", "down"]
    assert cells(axes)[:2] == ["+4.01", "+6.01"]
    assert [set(line.get_xdata()) for line in axes.lines] == [{1.5}]
    groups = {text.get_text(): text.get_position()[0] for text in axes.texts[-2:]}
    assert groups == {"in domain": 0.5, "out of domain": 2.5}


def test_many_cells_have_no_numbers():
    tasks = 301
    figure = study_figures(study({"bls": [[0.5] * tasks], "a": [[0.6] * tasks], "b": [[0.4] * tasks]}))["tasks.png"]
    assert cells(figure.axes[0]) == ["in domain", "out of domain"]


def test_synergy_is_in_the_given_order_and_unknown_cells_are_empty():
    matrix = [[np.nan, 0.1, -0.2], [0.1, np.nan, 0.05], [-0.2, 0.05, np.nan]]
    axes = synergy_matrix(["x", "y", "z"], matrix, [2, 0, 1], "help").axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown, [[np.nan, -0.2, 0.05], [-0.2, np.nan, 0.1], [0.05, 0.1, np.nan]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z", "x", "y"]
    assert cells(axes) == ["-0.200", "+0.050", "-0.200", "+0.100", "+0.050", "+0.100"]
    assert axes.images[0].get_clim() == (-0.2, 0.2)
    as_they_are = synergy_matrix(["x", "y", "z"], matrix).axes[0]
    assert [label.get_text() for label in as_they_are.get_xticklabels()] == ["x", "y", "z"]


def test_the_tree_joins_at_the_heights_of_the_linkage():
    tree = hierarchy.linkage([[0.0], [1.0], [10.0], [12.0]], "average")
    axes = dendrogram(tree, ["a", "b", "c", "d"], 2).axes[0]
    *joins, cut = axes.lines
    assert sorted(max(line.get_xdata()) for line in joins) == pytest.approx(sorted(tree[:, 2]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "d"]
    (first,) = [line for line in joins if max(line.get_xdata()) == 1]
    assert first.get_ydata().tolist() == [0, 0, 1, 1]
    assert set(cut.get_xdata()) == {(2 + 10.5) / 2}
    assert len(dendrogram(tree, list("abcd")).axes[0].lines) == 3


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_dashed_line_crosses_as_many_branches_as_there_are_clusters(count):
    tree = hierarchy.linkage(np.random.default_rng(0).random((5, 2)), "average")
    *joins, cut = dendrogram(tree, list("abcde"), count).axes[0].lines
    height = cut.get_xdata()[0]
    branches = [(line.get_xdata()[0], line.get_xdata()[1]) for line in joins]
    branches += [(line.get_xdata()[3], line.get_xdata()[2]) for line in joins]
    assert sum(low < height < high for low, high in branches) == count
    assert len(set(hierarchy.fcluster(tree, height, "distance"))) == count


@pytest.mark.parametrize(
    "draw",
    [
        lambda: synergy_matrix(["a"], [[np.nan]]),
        lambda: synergy_matrix(["a", "b"], np.zeros((2, 2))),
        lambda: dendrogram(hierarchy.linkage([[0.0], [1.0]]), ["a", "b"], 2),
        lambda: study_figures(study({"bls": [[0.5]], "new": [[0.5]]}, in_domain=1))["tasks.png"],
    ],
)
def test_little_data_still_gives_a_picture(draw):
    assert png(draw()).startswith(b"\x89PNG")


def test_pyplot_and_its_global_state_are_not_imported():
    code = (
        "import sys; from boom_ray.flows.study.pictures import dendrogram; import numpy as np;"
        "dendrogram(np.array([[0, 1, 1.0, 2]]), ['a', 'b']); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
