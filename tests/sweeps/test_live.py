"""A trial scores what the same merge scores on disk, whatever was tried before."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import EvaluationConfig, ModelConfig, TaskConfig
from boom_ray.errors import EvaluationError, MergeError
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.local_tasks import load_task
from boom_ray.evaluation.proxies import proxy_of
from boom_ray.evaluation.scores import ModelRef
from boom_ray.hashing import file_digest
from boom_ray.merging.job import MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.store import Store
from boom_ray.sweeps.job import TrialJob
from boom_ray.sweeps.live import SHARE, LiveEvaluator, LoadedTasks, own_room
from boom_ray.training.memory import machine_bytes
from tests.sweeps.conftest import MakeJob
from tests.tiny_members import Kitchen, perturb

pytestmark = pytest.mark.slow

HALVES = ("half-one", "half-two", "half-three")
RECIPES: tuple[dict[str, Any], ...] = (
    {"method": "linear", "weights": [1, 2, 3]},
    {"method": "multislerp", "base": "base", "weights": [3, 1, 1]},
    {"method": "ties", "parameters": {"density": 0.3}},
    {"method": "multislerp", "members": HALVES},
    {"method": "task_arithmetic", "weights": "size", "members": HALVES, "merge_dtype": "float64"},
    {"method": "linear", "output_dtype": "bfloat16"},
    {"method": "slerp", "members": ("one", "three"), "weights": [2, 1]},
)


def on_disk(root: Path, job: TrialJob, config: EvaluationConfig, model: ModelConfig) -> dict[str, float]:
    """Scores of the merge, written, loaded and evaluated by the stages."""
    store = Store(root)
    merged = merge_here(MergeJob(store, job.inputs, job.config))
    ref = ModelRef.of("merged", merged.local() / MODEL, model)
    evaluator = Evaluator(store, config)
    return {task.name: evaluator.measure(ref, task)[1]["score"] for task in job.tasks}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_are_those_of_the_merge_on_disk_in_any_order(
    tmp_path: Path, job: MakeJob, tasks: tuple[TaskConfig, ...], precision: str
) -> None:
    config, model = EvaluationConfig(precision=precision), ModelConfig(query_template="ask: {text}")
    order = tuple(sorted(tasks, key=lambda task: task.name))
    jobs = [job(tasks=order, **recipe) for recipe in RECIPES]
    wanted = [on_disk(tmp_path / "disk", one, config, model) for one in jobs]
    assert len({tuple(scores.values()) for scores in wanted}) == len(RECIPES), "recipes that score alike say nothing"
    for number, turn in enumerate((jobs, jobs[::-1])):
        evaluator = LiveEvaluator(Store(tmp_path / f"live{number}"), config, model)
        for one in turn:
            figures = evaluator.score(one).figures
            assert figures["scores"] == pytest.approx(wanted[jobs.index(one)], abs=1e-6), one.name
            assert figures["types"]["sts"] == "STS" and figures["metrics"]["sts"] == "cosine_spearman"


def test_a_trial_is_kept_by_what_determines_it(tmp_path: Path, job: MakeJob, tasks: tuple[TaskConfig, ...]) -> None:
    store, model = Store(tmp_path), ModelConfig()
    evaluator = LiveEvaluator(store, EvaluationConfig(), model)
    first = evaluator.score(job(method="linear", weights=[1, 1, 2]))
    renamed = dataclasses.replace(job(method="linear", weights=[2, 2, 4], cpus=2, shard_gb=1), name="other")
    assert evaluator.score(renamed) == first
    turned = dataclasses.replace(renamed, tasks=renamed.tasks[::-1])
    assert evaluator.score(turned) == first
    others = [
        job(method="linear", weights=[1, 2, 2]),
        job(method="linear", weights=[1, 1, 2], output_dtype="bfloat16"),
        job(method="linear", weights=[1, 1, 2], tasks=tasks[2:3]),
        job(method="linear", weights=[1, 1, 2], tasks=proxy_of(renamed.tasks, 12)),
        job(method="linear", weights=[1, 1, 2], members=("two", "one", "three")),
    ]
    keys = {evaluator.score(one).key for one in others}
    assert len(keys | {first.key}) == len(others) + 1
    assert LiveEvaluator(store, EvaluationConfig(seed=7), model).score(renamed).key not in keys | {first.key}


def test_inner_products_are_computed_once_and_kept(tmp_path: Path, job: MakeJob) -> None:
    for weights in ([1, 2, 3], [3, 2, 1]):
        evaluator = LiveEvaluator(Store(tmp_path), EvaluationConfig(), ModelConfig())
        for base in ("none", "base"):
            evaluator.score(job(method="multislerp", base=base, weights=weights))
            geometry = Store(tmp_path).finished("geometry")
    assert len(geometry) == 2
    evaluator.score(job(method="ties"))
    assert Store(tmp_path).finished("geometry") == geometry


def test_stored_inner_products_are_used(tmp_path: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from boom_ray.merging.tensors.vectors import Vectors

    first = job(method="multislerp", weights=[1, 2, 3])
    scores = LiveEvaluator(Store(tmp_path), EvaluationConfig(), ModelConfig()).score(first).figures["scores"]
    monkeypatch.setattr(Vectors, "_gram", lambda *_: pytest.fail("inner products were computed again"))
    evaluator = LiveEvaluator(Store(tmp_path), EvaluationConfig(), ModelConfig())
    other = evaluator.score(job(method="multislerp", weights=[3, 2, 1])).figures
    assert "error" not in other and other["scores"] != scores


def test_failures_of_a_trial_are_kept_and_the_next_one_is_right(
    tmp_path: Path, job: MakeJob, refs: dict[str, MemberRef]
) -> None:
    evaluator = LiveEvaluator(Store(tmp_path), EvaluationConfig(), ModelConfig())
    good = job(method="linear", weights=[1, 2, 3])
    wanted = on_disk(tmp_path / "disk", good, EvaluationConfig(), ModelConfig())
    huge = job(method="task_arithmetic", parameters={"scale": 1e9}, output_dtype="float16")
    failed = evaluator.score(huge)
    assert "which torch.float16 cannot hold" in failed.figures["error"] and "scores" not in failed.figures
    assert evaluator.store.get("trial", failed.key) is not None
    broken = evaluator.score(job(method="task_arithmetic", parameters={"scale": 1e30}))
    assert "of the merged model" in broken.figures["error"] or "NaN" in broken.figures["error"]
    assert evaluator.score(good).figures["scores"] == pytest.approx(wanted, abs=1e-6)


def test_members_that_diverged_are_a_kept_failure(tmp_path: Path, job: MakeJob, kitchen: Kitchen) -> None:
    folder = perturb(Path(kitchen.path("base")), tmp_path / "bad", seed=1, size=0.1)
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = math.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    good = job(method="linear")
    members = [*good.inputs.members[:2], MemberRef("bad", str(folder), "bad", 1)]
    bad = dataclasses.replace(good, inputs=dataclasses.replace(good.inputs, members=members))
    evaluator = LiveEvaluator(Store(tmp_path / "store"), EvaluationConfig(), ModelConfig())
    assert "holds NaN or infinity" in evaluator.score(bad).figures["error"]
    assert evaluator.held == frozenset()
    assert evaluator.score(good).figures["scores"]


def test_what_may_be_mended_is_raised_and_not_kept(tmp_path: Path, job: MakeJob, kitchen: Kitchen) -> None:
    store = Store(tmp_path / "store")
    evaluator = LiveEvaluator(store, EvaluationConfig(), ModelConfig())
    with pytest.raises(MergeError, match="2 numbers for 3 members"):
        evaluator.score(job(method="linear", weights=[1, 2]))
    with pytest.raises(EvaluationError, match=r"test\.jsonl does not exist"):
        evaluator.score(job(method="linear", tasks=(TaskConfig(name="x", path=str(tmp_path), type="sts"),)))
    with pytest.raises(EvaluationError, match="STS12 is not on this machine"):
        evaluator.score(job(method="linear", tasks=(TaskConfig(name="STS12"),)))
    folder = perturb(Path(kitchen.path("base")), tmp_path / "cut", seed=1, size=0.1)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    good = job(method="linear")
    members = [*good.inputs.members[:2], MemberRef("cut", str(folder), "cut", 1)]
    with pytest.raises(MergeError, match="is not a complete safetensors file"):
        evaluator.score(dataclasses.replace(good, inputs=dataclasses.replace(good.inputs, members=members)))
    assert store.finished("trial") == []


def test_a_first_member_with_other_prompts_gets_a_model_of_its_own(
    tmp_path: Path, job: MakeJob, kitchen: Kitchen
) -> None:
    folder = perturb(Path(kitchen.path("base")), tmp_path / "prompted", seed=5, size=0.1)
    settings = {"prompts": {"sts": "find the ", "Classification": "card "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    good = job(method="linear")
    alone = dataclasses.replace(good.inputs, members=[MemberRef("prompted", str(folder), "prompted", 1)])
    jobs = [good, dataclasses.replace(good, inputs=alone), job(method="linear", weights=[1, 2, 3])]
    evaluator = LiveEvaluator(Store(tmp_path / "live"), EvaluationConfig(), ModelConfig())
    for one in jobs:
        wanted = on_disk(tmp_path / "disk", one, EvaluationConfig(), ModelConfig())
        assert evaluator.score(one).figures["scores"] == pytest.approx(wanted, abs=1e-6)
        assert evaluator.held == {ref.fingerprint for ref in one.inputs.members}


def test_members_may_take_a_share_of_the_memory_by_cores() -> None:
    one, all_of_them = (own_room(EvaluationConfig(cpus_per_actor=cpus)) for cpus in (0.5, 1e6))
    assert 0 < one < all_of_them == SHARE * machine_bytes()


def test_tasks_are_loaded_once_and_drawn_alike(tmp_path: Path, tasks: tuple[TaskConfig, ...]) -> None:
    loaded = LoadedTasks(42)
    task = next(task for task in tasks if task.type == "clustering")
    spec = {"data": {"test.jsonl": file_digest(Path(str(task.path)) / "test.jsonl")}}
    first = loaded.get(task, spec)
    draws = [first.rng_state.random(), first.np_rng.random()]
    again = loaded.get(task, dict(spec))
    assert again is first and [again.rng_state.random(), again.np_rng.random()] == draws
    assert load_task(task, 42).rng_state.random() == draws[0]
    assert loaded.get(task, spec | {"seed": 43}) is not first


def test_threads_of_the_merge_leave_those_of_the_model_alone(tmp_path: Path, job: MakeJob) -> None:
    evaluator = LiveEvaluator(Store(tmp_path), EvaluationConfig(cpus_per_actor=2), ModelConfig())
    evaluator.score(job(method="multislerp"))
    assert torch.get_num_threads() == 2
