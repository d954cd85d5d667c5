"""A trial in this process: members in memory are merged straight into a live model, which is evaluated at once.

No folder is written and no model or task is loaded per trial. The scores are those of the same recipe merged to disk
and evaluated by the evaluation stage, whatever was merged before; on a GPU but for the rounding of its sums, since
merges on disk are computed on the CPU.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from mteb.abstasks import AbsTask

from boom_ray.config import EvaluationConfig, ModelConfig, TaskConfig
from boom_ray.errors import EvaluationError, MergeError
from boom_ray.evaluation.embedder import EngineEmbedder, KeptTokens
from boom_ray.evaluation.encoder import Encoder
from boom_ray.evaluation.evaluator import Evaluator, hub_data
from boom_ray.evaluation.local_tasks import load_task
from boom_ray.hashing import digest
from boom_ray.merging.job import MergeJob
from boom_ray.store import Artifact, Draft, Store
from boom_ray.sweeps.job import KIND, VERSION, Identity, TaskSpecs, TrialJob, identify
from boom_ray.sweeps.members import MemberSets
from boom_ray.training.memory import machine_bytes

SHARE = 0.5
"""Part of the memory of this process that members may take; the rest is for the live model, tasks and embeddings."""


@dataclass(frozen=True)
class Live:
    """A model that trials are merged into.

    Attributes:
        encoder: embeds texts with it.
        sets: the members in memory.
    """

    encoder: Encoder
    sets: MemberSets


class LiveEvaluator:
    """Scores trials, one after the other; keeps model, members, tasks and tokens.

    Args:
        store: where members are and trials go, as artifacts of kind ``trial``.
        evaluation: seed, batch size, precision, CPUs, GPUs.
        model: templates.
        room: most bytes of members that are kept in memory; by default `SHARE` of what this process may take.
    """

    def __init__(
        self, store: Store, evaluation: EvaluationConfig, model: ModelConfig, room: float | None = None
    ) -> None:
        """Nothing is loaded before the first trial."""
        self.store, self.evaluation, self.model = store, evaluation, model
        self._specs = TaskSpecs(evaluation)
        self._evaluator = Evaluator(store, evaluation)
        self._tasks = LoadedTasks(evaluation.seed)
        self._room = own_room(evaluation) if room is None else room
        self._digest = ""
        self._live: Live | None = None

    @property
    def held(self) -> frozenset[str]:
        """Fingerprints of the models whose tensors are in memory."""
        return self._live.sets.held if self._live is not None else frozenset()

    def score(self, job: TrialJob) -> Artifact:
        """Merge and evaluate; a trial that exists is returned at once.

        Returns:
            An artifact of kind ``trial`` without files. Its figures: ``scores``, ``metrics`` and ``types`` by task;
            ``seconds`` of merge and evaluation; ``merge_seconds``; ``load_seconds`` of model and members that were
            not in memory. Where members or embeddings hold NaN or a value does not fit into its type, ``error``
            says so instead of the first three: the same job would end in it again.

        Raises:
            MergeError: the recipe does not fit the members, or a file of theirs is damaged.
            EvaluationError: a task's data is missing.
            ModelError: the first member cannot be loaded.
        """
        identity = identify(self.store, job, self._specs, self.model)

        def build(draft: Draft) -> None:
            draft.figures = self._figures(job, identity)

        return self.store.materialize(KIND, identity.spec, identity.inputs, build, VERSION)

    def _figures(self, job: TrialJob, identity: Identity) -> dict[str, Any]:
        clock = Clock()
        try:
            live = self._open(identity)
            merger = live.sets.merger(self._merge_job(job))
            clock.lap("load_seconds")
            live.encoder.forget()
            merger.apply(identity.recipe)
            clock.lap("merge_seconds")
            found = self._evaluate(live.encoder, job, identity)
        except (MergeError, EvaluationError) as error:
            if error.__cause__ is not None:
                raise  # a file or the network is at fault, which may be mended
            found = {"error": str(error)}
        return found | clock.laps | {"seconds": clock.total() - clock.laps.get("load_seconds", 0.0)}

    def _open(self, identity: Identity) -> Live:
        """The live model; the weights in it are any."""
        wanted = identity.reader.prompts_digest
        if self._live is None or self._digest != wanted:
            if self._live is not None:
                self._live.sets.clear()
            self._live = None  # frees the last model before the next one is read
            encoder = self._evaluator.load(identity.reader.path)
            if isinstance(encoder.embedder, EngineEmbedder):
                encoder.embedder.kept = KeptTokens()
            self._live = Live(encoder, MemberSets(encoder.model, self._evaluator.threads, self._room))
            self._digest = wanted
        return self._live

    def _merge_job(self, job: TrialJob) -> MergeJob:
        config = job.config.model_copy(update={"cpus": self._evaluator.threads})
        return MergeJob(self.store, job.inputs, config)

    def _evaluate(self, encoder: Encoder, job: TrialJob, identity: Identity) -> dict[str, Any]:
        """Figures of all tasks, always in one order: which texts are embedded together depends on it."""
        figures = {}
        for task in sorted(job.tasks, key=lambda task: task.name):
            loaded = self._tasks.get(task, identity.spec["tasks"][task.name])
            figures[task.name] = self._evaluator.run(encoder, identity.reader, task, loaded)[1]
        names = {"scores": "score", "metrics": "metric", "types": "type"}
        return {many: {task: own[one] for task, own in figures.items()} for many, one in names.items()}


class LoadedTasks:
    """Tasks of mteb with their data, loaded once.

    Args:
        seed: of probes, subsamples and proxies.
    """

    def __init__(self, seed: int) -> None:
        """Nothing is loaded."""
        self._seed = seed
        self._tasks: dict[str, tuple[AbsTask, list[tuple[AbsTask, Any]]]] = {}

    def get(self, task: TaskConfig, spec: dict[str, Any]) -> AbsTask:
        """A task as if it had just been loaded: some draw their samples from a generator that goes on.

        Args:
            task: which.
            spec: all that determines its scores, see `boom_ray.evaluation.benchmarks.score_spec`.

        Raises:
            EvaluationError: see `load_task`; or the data of one of mteb's own is out of reach.
        """
        key = digest(spec)
        if key not in self._tasks:
            loaded = load_task(task, self._seed, spec.get("data"))
            parts = list(getattr(loaded, "tasks", None) or [loaded])
            for part in parts:
                if not part.data_loaded:  # mteb lets go of what it loads itself
                    with hub_data(task.name):
                        part.load_data()
            self._tasks[key] = (loaded, [(part, copy.deepcopy((part.rng_state, part.np_rng))) for part in parts])
        found, states = self._tasks[key]
        for part, state in states:
            part.rng_state, part.np_rng = copy.deepcopy(state)
        return found


class Clock:
    """Seconds of one piece of work after another.

    Attributes:
        laps: name to seconds.
    """

    def __init__(self) -> None:
        """Start."""
        self.laps: dict[str, float] = {}
        self._started = self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """End a piece and begin the next."""
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started


def own_room(evaluation: EvaluationConfig) -> float:
    """Bytes that members may take in a process of so many CPUs or GPUs."""
    if evaluation.gpus_per_actor > 0 and torch.cuda.is_available():
        return SHARE * min(1.0, evaluation.gpus_per_actor) * float(torch.cuda.mem_get_info()[1])
    return SHARE * min(1.0, evaluation.cpus_per_actor / len(os.sched_getaffinity(0))) * machine_bytes()
