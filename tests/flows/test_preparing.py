"""What it took to gather and search what a method needs, also where it was done earlier."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.config import EvaluationConfig, MergeConfig
from boom_ray.evaluation.scores import Evaluation, Score
from boom_ray.flows import preparing
from boom_ray.flows.preparing import prepare
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import MemberRef
from boom_ray.store import Artifact
from tests.flows.recording import bare_workspace

REFS = [MemberRef(name, "", name, 10) for name in ("one", "two")]


def artifact(kind: str, name: str, **figures: Any) -> Artifact:
    return Artifact(kind, name, "", {}, {}, {"examples": {"a": 3}, **figures}, name, {})


@pytest.mark.parametrize(
    ("method", "seconds"),
    [("linear", 0.0), ("fisher", 3.0), ("regmean", 3.0), ("self_positioning", 4.5), ("greedy_soup", 7.5)],
)
def test_the_time_of_what_was_gathered_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, seconds: float
) -> None:
    """Two members at 1 and 2 seconds; learning 4.5; a soup: two members and a merge at 2 each, the merge itself 1.5."""

    def gather(store: Any, member: MemberRef, *others: Any) -> Artifact:
        return artifact("fisher", member.name, seconds={"one": 1.0, "two": 2.0}[member.name])

    def learn(*arguments: Any, **named: Any) -> Artifact:
        return artifact("weights", "w", seconds=4.5, weights=[0.25, 0.75], scale=1.5)

    def evaluate(store: Any, models: Any, tasks: Any, listen: Any) -> Evaluation:
        value = {"one": 0.5, "two": 0.4}
        return Evaluation(
            tuple(
                Score(model.name, "sts", "STS", "in_domain", "m", value.get(model.name, 0.6), 2.0, cached=True)
                for model in models
            )
        )

    def reference(space: Any, ref: MemberRef, *others: Any) -> Any:
        return SimpleNamespace(name=ref.name)

    monkeypatch.setattr(preparing, "gather_fisher", gather)
    monkeypatch.setattr(preparing, "gather_activations", gather)
    monkeypatch.setattr(preparing, "learn_weights", learn)
    monkeypatch.setattr(preparing, "evaluate", evaluate)
    monkeypatch.setattr(preparing, "merge", lambda *arguments: artifact("merge", "m", seconds=1.5))
    monkeypatch.setattr(preparing, "model_ref", reference)
    monkeypatch.setattr(preparing, "complete_ref", reference)
    monkeypatch.setattr(preparing, "is_adapter", lambda folder: False)
    space, _ = bare_workspace(tmp_path)
    corpus = Artifact("corpus", "c", "", {}, {}, {"datasets": {"a": {"rows": 9}}}, "c", {})
    ground: Any = SimpleNamespace(model=None, loss=None, corpus=corpus, evaluation=EvaluationConfig())
    config = MergeConfig(method=method)
    assert prepare(space, MergeInputs(REFS, REFS[0]), config, ground).seconds == seconds
