"""Old and new configuration together, and what cannot go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import UpdateConfig
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError, MergeError, StoreError
from boom_ray.flows.update.plan import ELSEWHERE, NEW, NEW_ELSEWHERE, OLD, laid_over, plan_lines, plan_update
from boom_ray.merging.recipe import MemberRef
from boom_ray.store import Artifact, Store
from tests.flows.lineages import AWAY, TASK, lineage, run_config

DATASET = {"name": "c", "source": "c.jsonl", "task_type": "retrieval"}
NEW_TASK = {"name": "t-new", "path": "/tasks/new", "type": "sts"}


def config(**changes: Any) -> UpdateConfig:
    data = {"name": "plus", "current": "old", "corpus": {"datasets": [DATASET]}, **changes}
    return validate(UpdateConfig, data, "test")


def test_everything_else_is_as_in_the_run() -> None:
    before = lineage(run_config(seed=5, bags={"core_ratio": 0.3, "schedule": "task-sequential"}))
    run = plan_update(config(store="/there", training={"learning_rate": 1e-4}), before).run
    assert (run.name, run.store, run.seed) == ("plus", "/there", 5)
    assert [one.name for one in run.corpus.datasets] == ["a", "b", "c"]
    assert run.corpus.max_query_tokens == 64
    assert run.bags.core_ratio == 0.3 and run.bags.schedule.is_plain
    assert (run.training.learning_rate, run.training.batch_size) == (1e-4, 8)
    assert run.model == before.config.model


def test_an_update_s_member_is_no_branch() -> None:
    training = {"branches": True, "decay": "wsd", "warmup_updates": 5}
    assert not plan_update(config(), lineage(run_config(training=training))).run.training.branches


def test_tasks_of_the_run_and_new_ones() -> None:
    plan = plan_update(config(evaluation={"in_domain": [NEW_TASK], "actors": 2}), lineage())
    assert plan.groups == {OLD: ("t-old",), ELSEWHERE: ("t-away",), NEW: ("t-new",)}
    assert [task.name for task in plan.run.evaluation.in_domain] == ["t-old", "t-new"]
    assert [task.name for task in plan.added] == ["t-new"]
    assert plan.run.evaluation.actors == 2


def test_a_task_of_the_run_that_is_named_again_is_reported_as_new() -> None:
    plan = plan_update(config(evaluation={"in_domain": [AWAY]}), lineage())
    assert plan.groups == {OLD: ("t-old",), NEW: ("t-away",)}
    assert plan.run.evaluation.out_of_domain == () and plan.added == ()
    with pytest.raises(ConfigError, match="old has a task t-away with other settings"):
        plan_update(config(evaluation={"in_domain": [{**AWAY, "split": "dev"}]}), lineage())


def test_new_tasks_out_of_domain_are_no_old_ones() -> None:
    plan = plan_update(config(evaluation={"in_domain": [], "out_of_domain": [NEW_TASK]}), lineage())
    assert plan.groups == {OLD: ("t-old",), ELSEWHERE: ("t-away",), NEW_ELSEWHERE: ("t-new",)}
    assert [task.name for task in plan.run.evaluation.out_of_domain] == ["t-away", "t-new"]


def test_sizes_are_of_one_kind() -> None:
    """Beside a whole model its examples count once, however often they were seen; beside members what all have seen."""
    bag = Artifact("bag", "b", "", {}, {}, {"examples": {"a": 30, "c": 20}}, "b", {})
    update = Artifact("member", "u", "", {}, {}, {"examples": 150}, "u", {})
    merged = Artifact("merge", lineage().merged, "", {}, {}, {}, "m", {})
    for flat, sizes in ((False, [100, 50]), (True, [80, 100, 150])):
        plan = plan_update(config(from_members=flat), lineage())
        assert [one.examples for one in plan.to_merge(plan.member(update, bag), merged)] == sizes


def test_what_is_merged() -> None:
    before = lineage()
    update, merged = MemberRef("plus", "p", "f", 64), Artifact("merge", before.merged, "", {}, {}, {}, "m", {})
    chained = plan_update(config(), before).to_merge(update, merged)
    assert [(one.name, one.path, one.fingerprint, one.examples) for one in chained[:-1]] == [
        ("old", f"artifact:merge/{before.merged}/model", "m", 100)
    ]
    assert chained[-1] == update
    again = plan_update(config(from_members=True), before).to_merge(update, merged)
    assert [one.name for one in again] == ["bag-80", "bag-100", "plus"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "bag-80"}, "name: bag-80 is the name of a run, update or member that old was made from"),
        ({"corpus": {"datasets": [{**DATASET, "name": "a"}]}}, "old was trained on a dataset a already.*e.g. a-plus"),
        ({"corpus": {"datasets": [DATASET], "max_query_tokens": 32}}, r"max_query_tokens: old has 64.*\(got 32\)"),
        ({"training": {"learning_rat": 1}}, r"training\.learning_rat: unknown key; did you mean learning_rate"),
        ({"training": {"resources": {"worker": 1}}}, r"training\.resources\.worker: unknown key"),
        ({"corpus": {"datasets": [{**DATASET, "instruction": "find"}]}}, "dataset c has an instruction, but"),
        ({"evaluation": {"selection": [{**TASK, "name": "x"}]}}, "selection task x is the data of the reported task"),
    ],
)
def test_what_cannot_go_together(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        plan_update(config(**changes), lineage())


def test_a_recipe_must_fit_the_models_that_are_merged() -> None:
    slerp = {"method": "slerp"}
    plan_update(config(merge=slerp), lineage())
    with pytest.raises(MergeError, match="slerp merges exactly 2 members; there are 3"):
        plan_update(config(merge=slerp, from_members=True), lineage())


def test_a_limit_that_is_the_run_s_may_be_given() -> None:
    assert plan_update(config(corpus={"datasets": [DATASET], "max_query_tokens": 64}), lineage())


def test_an_earlier_name_is_not_taken_again() -> None:
    before = lineage(name="second", layers=(*lineage().layers, lineage().layers[0]))
    with pytest.raises(ConfigError, match="name: old is the name of a run"):
        plan_update(config(name="old", current="second"), before)


def test_trees_are_laid_over_one_another() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": 5}
    assert laid_over(old, {"a": {"c": [3]}, "d": {"x": 1}}) == {"a": {"b": 1, "c": [3]}, "d": {"x": 1}, "e": 5}
    assert laid_over(old, {}) == old


def test_a_plan_says_what_is_replayed_and_what_is_gone(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_update(config(), lineage())
    with pytest.raises(StoreError, match=r"artifact:bag/2+, which is missing .* Run the job that made it again"):
        plan_lines(plan, store)
    core = store.materialize("bag", {}, {}, lambda draft: draft.figures.update(examples={"a": 28, "b": 12}))
    layer = plan.before.layers[0]
    there = lineage(layers=(type(layer)(layer.name, layer.corpus, f"bag/{core.key}", layer.examples),))
    text = "\n".join(plan_lines(plan_update(config(), there), store))
    for words in ("old → plus", "2 datasets with 100 examples; of it 40 examples are replayed", "old, plus", "equal"):
        assert words in text
