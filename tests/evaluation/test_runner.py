from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError, ModelError
from boom_ray.evaluation import benchmarks, pool, proxies
from boom_ray.evaluation.benchmarks import score_inputs, score_spec, task_sizes
from boom_ray.evaluation.crew import Crew, actor_count
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.pool import Outcome, run_jobs
from boom_ray.evaluation.runner import Known, Pair, complete, evaluate, look_up
from boom_ray.evaluation.schedule import Job
from boom_ray.evaluation.scores import ModelRef, Score
from boom_ray.events import Event, silent
from boom_ray.hashing import file_digest
from boom_ray.store import Draft, Store
from tests.evaluation.task_folders import write_jsonl
from tests.tiny_model import make_tiny_model

CACHED = """
import sys
from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import ModelRef
from boom_ray.store import Store
task = TaskConfig(name="Mysts", path=sys.argv[3], type="sts")
found = evaluate(Store(sys.argv[1]), [ModelRef.of("tiny", sys.argv[2])], EvaluationConfig(in_domain=(task,)))
assert [score.cached for score in found.scores] == [True], found
heavy = {"ray", "mteb", "torch", "sentence_transformers"} & set(sys.modules)
assert not heavy, heavy
"""

PAIRS = [(first, second) for first in ("cat", "dog", "bird") for second in ("tree", "river", "bank")] * 1500


@pytest.mark.ray
def test_models_by_tasks_on_actors_then_from_the_store(
    ray_cluster: None, tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    store, events = Store(tmp_path / "store"), []
    other = ModelRef.of("other", make_tiny_model(tmp_path / "other", seed=1))
    config = EvaluationConfig(in_domain=(tasks["sts"], tasks["pair"]), out_of_domain=(tasks["bitext"],), actors=2)
    first = evaluate(store, [tiny, other], config, events.append)
    assert not first.failures
    assert [(score.model, score.task, score.group) for score in first.scores] == [
        (model, task, group)
        for model in ("tiny", "other")
        for task, group in (("Mysts", "in_domain"), ("Mypair", "in_domain"), ("Mybitext", "out_of_domain"))
    ]
    alone = Evaluator(Store(tmp_path / "alone"), config)
    for score in first.scores:
        model = tiny if score.model == "tiny" else other
        task = next(task for task in config.tasks if task.name == score.task)
        assert score.value == pytest.approx(alone.measure(model, task)[1]["score"], abs=1e-6)
    assert sorted((event.unit, event.done) for event in events if event.unit != "all pairs") == sorted(
        (f"{score.model}/{score.task}", done) for score in first.scores for done in (0, 1)
    )
    done = [event for event in events if event.unit == "all pairs"]
    assert [event.note for event in done] == [f"{ended} of 6" for ended in range(7)]
    assert done[-1].done == done[-1].total == 2 * sum(task_sizes(config.tasks).values())
    events.clear()
    second = evaluate(store, [tiny, other], config, events.append)
    assert second.scores == tuple(dataclasses.replace(score, cached=True) for score in first.scores)
    assert {event.note for event in events} == {"cached"}


def test_only_tasks_of_missing_scores_need_their_data(tiny: ModelRef) -> None:
    first, second = TaskConfig(name="STS12"), TaskConfig(name="STS13")
    other = dataclasses.replace(tiny, name="other")
    config = EvaluationConfig(in_domain=(first, second))
    pairs = tuple(Pair(model, task, {}) for model in (tiny, other) for task in config.tasks)
    scores = [Score(one.model.name, one.task.name, "STS", "in_domain", "x", 0.5, 1.0, True) for one in pairs]
    found = {(score.model, score.task): score for score in scores}
    assert Known(config, pairs, {}).missing_tasks == [first, second]
    assert Known(config, pairs, {names: found[names] for names in found if names[1] == "STS12"}).missing_tasks == [
        second
    ]
    assert Known(config, pairs, found).missing_tasks == []


@pytest.mark.ray
def test_a_big_task_is_shared_and_its_score_is_the_same_to_the_last_bit(
    ray_cluster: None, tmp_path: Path, tiny: ModelRef
) -> None:
    rows = [{"sentence1": f"{a} {n}", "sentence2": f"{n} {b}", "score": n % 6} for n, (a, b) in enumerate(PAIRS)]
    task = TaskConfig(name="big", path=str(write_jsonl(tmp_path / "big" / "test.jsonl", rows).parent), type="sts")
    config = EvaluationConfig(in_domain=(task,), actors=3)
    (score,) = evaluate(Store(tmp_path / "store"), [tiny], config).scores
    assert score.value == Evaluator(Store(tmp_path / "alone"), config).measure(tiny, task)[1]["score"]


@pytest.mark.ray
def test_one_failure_leaves_the_others(
    ray_cluster: None, tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    events: list[Event] = []
    config = EvaluationConfig(in_domain=(tasks["sts"], TaskConfig(name="STS12"), tasks["pair"]), actors=1)
    found = evaluate(Store(tmp_path), [tiny], config, events.append)
    assert [score.task for score in found.scores] == ["Mysts", "Mypair"]
    assert [(failure.model, failure.task) for failure in found.failures] == [("tiny", "STS12")]
    assert "hub cannot be reached" in found.failures[0].error
    assert [event.note[:7] for event in events if event.unit == "tiny/STS12"] == ["", "failed:"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_dead_actor_is_restarted_and_its_job_retried_once(
    ray_cluster: None, tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    class DyingStore(Store):
        """Ends its process when a task named in ``deaths`` is stored, as often as it says."""

        def __reduce__(self) -> tuple:
            return (DyingStore, (self.root, self.scratch))

        def materialize(self, kind: str, spec: dict, inputs: dict, build: object, version: int = 1) -> object:
            deaths = Path(self.root) / f"deaths-{spec['task']}"
            left = int(deaths.read_text()) if deaths.exists() else 0
            if left:
                deaths.write_text(str(left - 1))
                os._exit(1)
            return super().materialize(kind, spec, inputs, build, version)

    (tmp_path / "deaths-Mysts").write_text("1")
    (tmp_path / "deaths-Mypair").write_text("2")
    config = EvaluationConfig(in_domain=(tasks["pair"], tasks["sts"], tasks["bitext"]), actors=1)
    jobs = [Job(tiny, task, score_spec(tiny, task, config), score_inputs(tiny), 1) for task in config.tasks]
    outcomes = {found.job.task.name: found for found in run_jobs(DyingStore(tmp_path), jobs, config, silent)}
    assert outcomes["Mysts"].figures and outcomes["Mybitext"].figures
    assert outcomes["Mypair"].figures is None and "died again on a second try" in outcomes["Mypair"].error
    assert (tmp_path / "deaths-Mypair").read_text() == "0"


def test_a_cached_evaluation_needs_neither_ray_nor_mteb(
    tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    store, config = Store(tmp_path), EvaluationConfig(in_domain=(tasks["sts"],))

    def build(draft: Draft) -> None:
        draft.figures |= {"score": 0.5, "metric": "cosine_spearman", "type": "STS", "seconds": 1.0}

    store.materialize("scores", score_spec(tiny, tasks["sts"], config), score_inputs(tiny), build)
    arguments = [str(tmp_path), tiny.path, str(tasks["sts"].path)]
    subprocess.run([sys.executable, "-c", CACHED, *arguments], check=True)


def test_faulty_data_is_found_before_anything_starts(tmp_path: Path, tiny: ModelRef) -> None:
    bad = TaskConfig(name="bad", path=str(tmp_path), type="sts")
    with pytest.raises(EvaluationError, match=r"test\.jsonl does not exist"):
        evaluate(Store(tmp_path), [tiny], EvaluationConfig(in_domain=(bad,)))


def test_a_missing_model_is_found_before_anything_starts(tmp_path: Path, tasks: dict[str, TaskConfig]) -> None:
    gone = ModelRef("gone", str(tmp_path / "gone"), "f", "p")
    with pytest.raises(ModelError, match="no model folder"):
        evaluate(Store(tmp_path), [gone], EvaluationConfig(in_domain=(tasks["sts"],)))


def test_files_of_a_task_are_hashed_once_for_all_models(
    tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def hashing(path: Path) -> str:
        hashed.append(path.name)
        return file_digest(path)

    for module in (benchmarks, proxies):
        monkeypatch.setattr(module, "file_digest", hashing)
    monkeypatch.setattr(pool, "run_jobs", lambda store, jobs, *others: [Outcome(job, error="no") for job in jobs])
    quick = tasks["sts"].model_copy(update={"name": "quick", "size": 8})
    others = [dataclasses.replace(tiny, name=name, query_template=f"{name} {{text}}") for name in ("a", "b")]
    config = EvaluationConfig(in_domain=(tasks["retrieval"], quick))
    assert len(evaluate(Store(tmp_path), [tiny, *others], config).failures) == 6
    files = ["corpus.jsonl", "queries.jsonl", "test.jsonl", "test.tsv"]
    assert sorted(hashed[:4]) == sorted(hashed[4:]) == files  # to look scores up, and when they were read
    known = look_up(Store(tmp_path), [tiny, *others], config)
    assert [pair.spec for pair in known.missing] == [score_spec(*pair[:2], config) for pair in known.pairs]
    assert known.hashes == {
        name: score_spec(tiny, task, config)["data"]
        for name, task in (("Myretrieval", tasks["retrieval"]), ("quick", quick))
    }


@pytest.mark.ray
def test_actors_that_wait_for_jobs_take_them_and_are_ended(
    ray_cluster: None, tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    store, config = Store(tmp_path), EvaluationConfig(in_domain=(tasks["sts"],))
    with Crew(store, config) as crew:
        crew.start(1, all_local=True)
        (early,) = crew.ready()
        crew.start(3, all_local=True)  # once only
        assert crew.ready() == [early]
        (score,) = complete(store, look_up(store, [tiny], config), crew=crew).scores
    assert not score.cached
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(early.warm_up.remote())


def test_models_need_different_names(tmp_path: Path, tiny: ModelRef) -> None:
    with pytest.raises(EvaluationError, match="used twice: tiny"):
        evaluate(Store(tmp_path), [tiny, tiny], EvaluationConfig())


@pytest.mark.parametrize(
    ("fields", "jobs", "resources", "expected"),
    [
        ({}, 10, {"CPU": 4.0, "GPU": 0.0}, 4),
        ({}, 3, {"CPU": 4.0, "GPU": 0.0}, 3),
        ({"actors": 4}, 3, {"CPU": 8.0, "GPU": 0.0}, 4),
        ({"actors": 2}, 10, {"CPU": 4.0, "GPU": 0.0}, 2),
        ({"actors": 9}, 10, {"CPU": 4.0, "GPU": 0.0}, 4),
        ({"cpus_per_actor": 0.1}, 99, {"CPU": 1.0, "GPU": 0.0}, 10),
        ({"gpus_per_actor": 0.5}, 10, {"CPU": 16.0, "GPU": 2.0}, 4),
        ({"gpus_per_actor": 1}, 10, {"CPU": 16.0, "GPU": 0.0}, 0),
        ({"cpus_per_actor": 8}, 10, {"CPU": 4.0, "GPU": 0.0}, 0),
    ],
)
def test_actor_count(fields: dict, jobs: int, resources: dict, expected: int) -> None:
    assert actor_count(EvaluationConfig(**fields), jobs, [resources]) == expected
