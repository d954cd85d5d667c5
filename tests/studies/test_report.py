from __future__ import annotations

import json
from pathlib import Path

import pytest

from boom_ray.config.study import ClaimConfig
from boom_ray.studies.report import report_csv, report_markdown
from boom_ray.studies.results import Failed, from_json, to_json
from tests.studies.planted import study

GOLDEN = Path(__file__).with_name("golden.md")
META = {"command": "python jobs/study.py conf/tiny.yaml", "date": "2026-11-26"}
TINY = study(
    {
        "bls": [[0.50, 0.60, 0.70, 0.80], [0.52, 0.62, 0.70, 0.80]],
        "new": [[0.51, 0.61, 0.70, 0.79], [0.54, 0.64, 0.72, 0.81]],
        "gone": [],
    },
    base=[0.40, 0.40, 0.60, 0.60],
    failures=[Failed("gone", 1, "No memory\nwas left.")],
    titles={"bls": "batch-level shuffling", "new": "{80,100}", "gone": ""},
)
CLAIMS = (
    ClaimConfig(text="New is better.", arm="new", versus=("bls",)),
    ClaimConfig(text="Gone | is as good.", arm="gone", versus=("bls",), where=("all",), says="no_worse"),
)


def test_the_report_of_a_tiny_study_is_that_of_the_file():
    assert report_markdown(TINY, CLAIMS, META, ["differences.png"]) == GOLDEN.read_text(encoding="utf-8")


def test_the_report_renders_again_from_what_was_stored():
    stored = json.dumps(to_json(TINY))
    assert report_markdown(from_json(json.loads(stored)), CLAIMS, META) == report_markdown(TINY, CLAIMS, META)


def test_the_order_of_runs_does_not_matter():
    found = to_json(TINY)
    turned = from_json(found | {"runs": found["runs"][::-1]})
    assert report_markdown(turned, CLAIMS, META) == report_markdown(TINY, CLAIMS, META)
    assert report_csv(turned) == report_csv(TINY)


def test_what_there_is_nothing_of_has_no_section():
    one = study({"bls": [[0.5, 0.6]]}, in_domain=2)
    text = report_markdown(one, [], {})
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# planted: report of the study",
        "## Scores and cost",
        "## Task types",
        "## Tasks",
    ]
    assert "Out of domain" not in text and "on all tasks" not in text and "**" not in text


def test_a_study_of_which_nothing_was_made_still_has_a_report():
    one = study({"bls": [], "new": []}, seeds=(0,))
    text = report_markdown(one, [ClaimConfig(text="New.", arm="new", versus=("bls",))], {})
    assert "0 of 2 made; tasks: none" in text
    assert "- `new`, seed 0: was not made" in text
    assert "new has no result" in text
    assert report_csv(one) == []
    assert "## Task types" not in text and "## Tasks" not in text


def test_the_best_of_what_is_shown_is_bold_the_base_among_them():
    one = study({"bls": [[0.50001]], "new": [[0.50002]], "low": [[0.4]]}, in_domain=1, base=[0.3])
    table = report_markdown(one, [], {}).split("## Tasks")[1]
    (row,) = [line for line in table.splitlines() if line.startswith("| t0")]
    assert [cell.strip() for cell in row.split("|")[3:-1]] == ["30.00", "**50.00**", "**50.00**", "40.00"]


def test_tasks_that_a_run_lacks_are_listed():
    one = study({"bls": [[0.5, 0.6]], "new": [[0.5]]}, in_domain=1)
    text = report_markdown(one, [], {})
    assert "- `new`, seed 0 has no score on: t1" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| new") and "full" not in line][:1]
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["**50.00**", "–", "–"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_differences_have_an_interval_from_two_seeds_on(seeds):
    one = study({"bls": [[0.5]] * seeds, "new": [[0.6], [0.62]][:seeds]}, in_domain=1)
    section = report_markdown(one, [], {}).split("## Differences to bls")[1].split("##")[0]
    cell = {1: "|    +10.00 |", 2: "| +11.00 (-1.71 to +23.71) |"}[seeds]  # 1 times 12.706
    assert cell in section
