"""Training all members: as many at once as the cluster fits, each resumed after failures, none trained twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.artifacts.plan import open_plan
from boom_ray.config import ResourcesConfig
from boom_ray.errors import ConfigError, TrainingError
from boom_ray.events import Event, Report, silent
from boom_ray.runtime import cause, event_queue, nodes_resources, room
from boom_ray.store import Artifact, Store
from boom_ray.training.branches import branch, branch_jobs, steps_of, trained_steps
from boom_ray.training.job import MemberJob
from boom_ray.training.lease import lease
from boom_ray.training.order import Order, Result, with_trunks
from boom_ray.training.scores import Saved, Scorer, ScoreTasks, remove_left
from boom_ray.training.worker import train_worker

TRAINER_HELPERS_GB = 0.6  # controller and watchers of one trainer, measured (RAY.md section 1)
REFITS = 3  # a killed controller is replaced this often


def train_members(
    store: Store,
    jobs: Sequence[MemberJob],
    autoscaling: bool = False,
    report: Report = silent,
    scorer: Scorer | None = None,
) -> dict[str, Artifact]:
    """Train the members that the store does not hold yet.

    Args:
        store: where bags and corpus are and members go.
        jobs: the members, named uniquely, with the same resources; their trunks are trained first.
        autoscaling: the cluster grows on demand, so its present size is no limit.
        report: told of progress.
        scorer: evaluates members while they train, if their ``training.scores`` wants it.

    Returns:
        name to artifact, whose folder ``model/`` is a sentence-transformers model; figures ``steps``, ``examples``,
        ``curve`` [(step, loss)…], ``seconds``, ``resumed_at``, ``skipped_steps``.

    Raises:
        TrainingError: some members failed; names them, the reason and what is finished.
        ConfigError: the cluster can never hold one member.
        ValueError: two members have one name.
    """
    _check_names(jobs)
    found = {job.name: store.get(job.kind, job.key) for job in jobs}
    for job in jobs:
        artifact = found[job.name]
        if artifact is not None:
            steps = artifact.figures["steps"]
            report(Event("members", job.name, steps, steps, {}, "stored"))
    todo = with_trunks(store, [job for job in jobs if found[job.name] is None])
    failures: dict[str, str] = {}
    if scorer is None:  # weights that nobody evaluates are not left
        todo = [replace(job, training=job.training.model_copy(update={"scores": None})) for job in todo]
    if todo:
        parallel = members_at_once(todo[0].training.resources, len(todo), autoscaling)
        for name, result in _fit_all(store, todo, parallel, report, scorer).items():
            if isinstance(result, str):
                failures[name] = result
            elif name in found:  # no trunk
                found[name] = result
    if failures:
        finished = [name for name, artifact in found.items() if artifact is not None]
        raise TrainingError(_failure_text(failures, finished))
    return {name: artifact for name, artifact in found.items() if artifact is not None}


def _check_names(jobs: Sequence[MemberJob]) -> None:
    """Everything below goes by name: of two namesakes, the one in the store would hide the one that is not."""
    keys: dict[str, str] = {}
    for job in jobs:
        if keys.setdefault(job.name, job.key) != job.key:
            raise ValueError(f"two members are called {job.name}: {keys[job.name]} and {job.key}")


def train_branches(
    store: Store,
    job: MemberJob,
    ratios: Mapping[str, float],
    autoscaling: bool = False,
    report: Report = silent,
    scorer: Scorer | None = None,
) -> dict[str, Artifact]:
    """Train members that are branches of one run, see `boom_ray.training.branches`.

    Args:
        store: where bag and corpus are and trunk and members go.
        job: trained on all of the bag's plan; its name does not matter.
        ratios: name of each member to its share of the plan.
        autoscaling: the cluster grows on demand.
        report: told of progress.
        scorer: evaluates trunk and members while they train.

    Returns:
        name to artifact, as of `train_members`.

    Raises:
        TrainingError: some members failed.
        ConfigError: training or plan are none for branches, a branch is too short, or the cluster can never hold one.
    """
    steps = steps_of(open_plan(store, job.bag_key), job.training)
    jobs = branch_jobs(job, ratios, steps)
    lengths = [branch(ratio, steps, job.training) for ratio in ratios.values()]
    alone = sum(one.steps for one in lengths)
    note = f"{len(jobs)} branches of one run: {trained_steps(lengths):,} steps instead of {alone:,}"
    report(Event("members", "trunk", 1, 1, {}, note))
    return train_members(store, jobs, autoscaling, report, scorer)


def members_at_once(resources: ResourcesConfig, members: int, autoscaling: bool) -> int:
    """How many members run side by side, so that none waits while holding a part of what it needs.

    Raises:
        ConfigError: the cluster can never hold one.
    """
    limit = min(members, resources.max_parallel_members or members)
    if autoscaling:
        return limit
    nodes = nodes_resources(wait_s=10)
    slots = room(nodes, resources.cpus_per_worker, resources.gpus_per_worker)
    workers = resources.least_workers
    if slots < workers:
        raise ConfigError(
            f"One member needs {workers} workers with {resources.cpus_per_worker:g} CPUs and "
            f"{resources.gpus_per_worker:g} GPUs each; the cluster's {len(nodes)} nodes have room for {slots} at once. "
            f"Lower training.resources.workers or cpus_per_worker, add nodes, or set cluster.autoscaling=true if the "
            f"cluster grows on demand."
        )
    limit = min(limit, slots // workers)
    if resources.memory_gb_per_worker is not None:
        memory = TRAINER_HELPERS_GB + workers * resources.memory_gb_per_worker
        limit = min(limit, int(sum(node["memory_gb"] for node in nodes) / memory))
    return max(1, limit)  # memory is an estimate, so one member is always tried


def _fit_all(
    store: Store, jobs: Sequence[MemberJob], parallel: int, report: Report, scorer: Scorer | None
) -> dict[str, Result]:
    """Fit every member in threads, each when its trunk is there."""
    results: dict[str, Result] = {}
    stopping = threading.Event()
    scores = _score_tasks(store, jobs, report, scorer)

    def take(item: Event | Saved) -> None:
        if isinstance(item, Event):
            report(item)
        elif scores is not None:
            scores.start(item)
        if scores is not None:
            scores.collect()

    def end(name: str, result: Result) -> None:
        results[name] = result
        if isinstance(result, str):
            report(Event("members", name, 0, 0, {}, "failed"))

    with event_queue(take) as queue:
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="member")
        order, running = Order(jobs), dict[Future[Result], MemberJob]()

        def start() -> None:
            ready, lost = order.ready(results)
            running.update({pool.submit(_fit, store, job, queue, stopping, report): job for job in ready})
            for name, reason in lost.items():
                end(name, reason)

        try:
            start()
            for job in jobs:
                report(Event("members", job.name, 0, 0, {}, "waits"))
            while running:
                for future in wait_for(running, return_when=FIRST_COMPLETED).done:
                    end(running.pop(future).name, future.result())
                start()
        except BaseException:
            stopping.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if scores is not None:
        scores.collect(wait=True)
    return results


def _score_tasks(store: Store, jobs: Sequence[MemberJob], report: Report, scorer: Scorer | None) -> ScoreTasks | None:
    config = jobs[0].training.scores
    if config is None or scorer is None:
        return None
    return ScoreTasks(store, {job.name: job for job in jobs}, scorer, config, report)


def _fit(store: Store, job: MemberJob, queue: Any, stopping: threading.Event, report: Report) -> Result:
    """Train one member to its artifact, or return why that is impossible; another job that trains it is waited for."""
    said = False

    def wait() -> bool:
        nonlocal said
        if not said:
            report(Event("members", job.name, 0, 0, {}, "another job trains it; waits"))
            said = True
        return stopping.is_set() or store.get(job.kind, job.key) is not None

    with lease(store, job.key, wait) as is_ours:
        found = store.get(job.kind, job.key)
        if found is not None:
            return found
        return _fit_ours(store, job, queue, stopping) if is_ours else "interrupted"


def _fit_ours(store: Store, job: MemberJob, queue: Any, stopping: threading.Event) -> Result:
    """The same, alone."""
    reason = ""
    remove_left(store, job)
    for _ in range(REFITS):
        if stopping.is_set():
            return "interrupted"
        try:
            answer = _trainer(store, job, queue).fit().return_value
        except (ray.exceptions.ActorDiedError, ray.train.ControllerError) as error:
            reason = f"Ray's train controller died: {error}"
            continue  # the same name continues from the last checkpoint
        except Exception as error:  # one member's failure, whatever it is, must not lose the others
            return f"{type(cause(error)).__name__}: {cause(error)}"
        if answer:
            return str(answer["text"])
        artifact = store.get(job.kind, job.key)
        if artifact is None:
            return f"it ended without leaving its artifact {job.kind}/{job.key} in {store.root}"
        _remove_checkpoints(store, job)
        return artifact
    return reason


def _trainer(store: Store, job: MemberJob, queue: Any) -> TorchTrainer:
    resources = job.training.resources
    per_worker = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "store": store, "queue": queue},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,  # a pair (least, most) makes Ray Train elastic
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=per_worker,
            accelerator_type=resources.accelerator_type,
        ),
        run_config=RunConfig(
            name=job.key,
            storage_path=store.location("training", "").rstrip("/"),
            failure_config=FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=job.training.keep_checkpoints),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _remove_checkpoints(store: Store, job: MemberJob) -> None:
    """The artifact is the result; its checkpoints are only in the way."""
    path = store.folder(f"training/{job.key}")
    if store.fs.exists(path):
        store.fs.rm(path, recursive=True)


def _failure_text(failures: dict[str, str], finished: Sequence[str]) -> str:
    lines = [f"{len(failures)} of {len(failures) + len(finished)} members could not be trained:"]
    lines += [f"  {name}: {reason}" for name, reason in failures.items()]
    done = f"Finished and kept: {', '.join(finished)}. " if finished else ""
    lines.append(f"{done}Run the same command again to continue; finished members are not trained again.")
    return "\n".join(lines)
