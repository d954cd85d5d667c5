"""Evaluation actors: long-lived processes that keep mteb and their last model."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from boom_ray.runtime import nodes_resources, room  # isort: skip  (sets Ray's environment before Ray is imported)

import ray

from boom_ray.config import EvaluationConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.schedule import Job
from boom_ray.store import Store

START_TIMEOUT_S = 600.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
log = logging.getLogger(__name__)


class EvaluationActor:
    """The process of one `Evaluator`; imports mteb and torch when its first job comes, or when it is told to."""

    def __init__(self, store: Store, config: EvaluationConfig, board: str) -> None:
        """Remember what the evaluator needs; ``board`` names the actor of `boom_ray.evaluation.sharing.Board`."""
        self._arguments = (store, config, functools.partial(_call, board))
        self._evaluator: Any = None

    def ready(self) -> bool:
        """Whether the actor has been placed."""
        return True

    def warm_up(self) -> None:
        """Import mteb and torch."""
        self._load()

    def score(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Evaluate one pair; see `Evaluator.score`."""
        found: tuple[str, dict[str, Any]] = self._load().score(job.model, job.task, job.spec, job.inputs)
        return found

    @ray.method(max_task_retries=0)  # type: ignore[untyped-decorator]  # as Ray annotates it
    def help(self) -> None:
        """Embed blocks of other actors' tasks, until the actor is killed."""
        from boom_ray.evaluation.sharing import help_others

        help_others(self._arguments[2], lambda *block: self._load().embed_block(*block), lambda: False)

    def _load(self) -> Any:
        if self._evaluator is None:
            from boom_ray.evaluation.evaluator import Evaluator

            self._evaluator = Evaluator(*self._arguments)
        return self._evaluator


def _call(board: str, method: str, *arguments: Any) -> Any:
    return ray.get(getattr(_found(board), method).remote(*arguments))


@functools.cache
def _found(board: str) -> Any:
    return ray.get_actor(board)


class Crew:
    """Evaluation actors; started before their jobs are known, they import mteb while the driver does other things.

    They hold their CPUs and GPUs until the block ends, so no other Ray tasks may be waited for inside it.

    Args:
        store: takes the scores.
        config: what an actor asks for, and how it computes; its tasks do not matter.
    """

    def __init__(self, store: Store, config: EvaluationConfig) -> None:
        """Start nothing."""
        self.store, self.config = store, config
        self._actors: list[Any] = []
        self._board: Any = None
        self._has_room = True

    def __enter__(self) -> Crew:
        """Start nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the actors, unless the cluster has ended with them."""
        if self._actors and ray.is_initialized():
            for actor in [*self._actors, self._board]:
                ray.kill(actor)
        self._actors = []

    def start(self, jobs: int, all_local: bool) -> None:
        """Start actors, once; needs a running cluster.

        Args:
            jobs: how many pairs there are to evaluate, or may be.
            all_local: whether all tasks are folders, so that nobody needs the network.
        """
        if self._actors:
            return
        from boom_ray.evaluation.sharing import Board

        count = actor_count(self.config, jobs, nodes_resources(wait_s=10))
        # a name, since Ray warns of handles among the arguments of an actor that it may have to start again
        name = f"boom_ray-board-{uuid.uuid4().hex}"
        self._board = ray.remote(Board).options(num_cpus=0, name=name).remote()
        self._has_room = count > 0
        factory = ray.remote(EvaluationActor).options(
            num_cpus=self.config.cpus_per_actor,
            num_gpus=self.config.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=1,
            runtime_env={"env_vars": OFFLINE if all_local else {}},
        )
        self._actors = [factory.remote(self.store, self.config, name) for _ in range(max(count, 1))]
        for actor in self._actors:
            actor.warm_up.remote()  # what it raises, the first job raises again

    def ready(self) -> list[Any]:
        """The actors.

        Raises:
            EvaluationError: the cluster has no room for a single one.
        """
        if not self._has_room:
            wait_for_room(self._actors[0], self.config)
        return self._actors


def actor_count(config: EvaluationConfig, jobs: int, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many actors to start: as configured, or as fit and no more than there are jobs; 0 if not one fits.

    More than there are jobs are started if the user says so: they help with big tasks.
    """
    return min(config.actors or jobs, room(nodes, config.cpus_per_actor, config.gpus_per_actor))


def wait_for_room(actor: Any, config: EvaluationConfig) -> None:
    """An autoscaler may still bring the node; without one this ends in an error instead of waiting for ever."""
    need = f"{config.cpus_per_actor:g} CPUs and {config.gpus_per_actor:g} GPUs"
    log.warning("No node has room for an evaluation actor (%s); waiting for one to join.", need)
    ready, _ = ray.wait([actor.ready.remote()], timeout=START_TIMEOUT_S)
    if not ready:
        ray.kill(actor)
        raise EvaluationError(
            f"No node of the cluster has the {need} that an evaluation actor asks for. "
            f"Lower evaluation.cpus_per_actor or evaluation.gpus_per_actor, or add nodes."
        )
