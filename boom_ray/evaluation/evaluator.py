"""One model on one task, here and now, without Ray; what an evaluation actor holds."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import mteb
import torch
from mteb.abstasks import AbsTask
from mteb.results import TaskResult
from threadpoolctl import threadpool_limits

from boom_ray.artifacts.tokens import F32
from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.encoder import Encoder, load_model, task_prompts
from boom_ray.evaluation.local_tasks import load_task
from boom_ray.evaluation.queries import watch_queries, write_queries
from boom_ray.evaluation.scores import ModelRef
from boom_ray.evaluation.sharing import Sharer
from boom_ray.hashing import digest
from boom_ray.store import Draft, Store

OFFLINE_ERRORS = (
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectionError",
    "ConnectTimeout",
    "ConnectError",
)


class Evaluator:
    """Evaluates pairs of model and task; keeps the last model loaded.

    Args:
        store: where results go, as artifacts of kind ``scores``.
        config: seed, batch size, precision, CPUs.
        board: calls a method of the board on which big tasks are shared, see `boom_ray.evaluation.sharing`.
    """

    def __init__(self, store: Store, config: EvaluationConfig, board: Callable[..., Any] | None = None) -> None:
        """Set the number of threads and quieten the libraries of this process."""
        self.store, self.config, self.board = store, config, board
        self._loaded: tuple[str, Encoder] | None = None
        self.threads = max(1, int(config.cpus_per_actor))
        torch.set_num_threads(self.threads)
        _quiet()

    def score(
        self, model: ModelRef, task: TaskConfig, spec: dict[str, Any], inputs: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Evaluate, leave the artifact (spec, inputs) in the store, and return its key and figures.

        Raises:
            EvaluationError: the task's data is faulty or unreachable, or its score is not a number.
            ModelError: the model cannot be loaded.
        """
        result, figures, queries = self.examine(model, task, digest(spec["data"]) if spec.get("data") else "")

        def build(draft: Draft) -> None:
            result.to_disk(draft.path / f"{task.name}.json")
            write_queries(draft.path, queries)
            draft.figures |= figures

        artifact = self.store.materialize("scores", spec, inputs, build)
        return artifact.key, artifact.figures

    def measure(self, model: ModelRef, task: TaskConfig, revision: str = "") -> tuple[TaskResult, dict[str, Any]]:
        """Mteb's result of one pair, and the figures that the artifact keeps."""
        return self.examine(model, task, revision)[:2]

    def examine(
        self, model: ModelRef, task: TaskConfig, revision: str = ""
    ) -> tuple[TaskResult, dict[str, Any], dict[str, float]]:
        """The same, and the main metric of every query where there is one."""
        started = time.monotonic()
        encoder = self._encoder(model)
        encoder.sharer = Sharer(self.board, model) if self.board is not None else None
        loaded = load_task(task, self.config.seed, revision or "local")
        parts = [part.metadata.name for part in getattr(loaded, "tasks", ())]
        encoder.use_prompts(task_prompts(model, task, _instruction(task, loaded), parts))
        queries = watch_queries(loaded)
        result = self._run(encoder, loaded)
        value = float(result.get_score())
        if not math.isfinite(value):
            raise EvaluationError(
                f"{loaded.metadata.main_score} of {model.name} on {task.name} is {value}: all its embeddings are equal."
            )
        figures = {
            "score": value,
            "metric": loaded.metadata.main_score,
            "type": loaded.metadata.type,
            "seconds": round(time.monotonic() - started, 3),
            "revision": loaded.metadata.revision,
            "prompts": encoder.used_prompts,
        }
        return result, figures, queries()

    def embed_block(self, model: ModelRef, texts: Sequence[str], prompt: str) -> F32:
        """Embed a block of another actor's task."""
        return self._encoder(model).embed_block(texts, prompt)

    def _encoder(self, model: ModelRef) -> Encoder:
        if self._loaded is None or self._loaded[0] != model.path:
            self._loaded = None  # frees the last model before the next one is read
            device = "cuda" if self.config.gpus_per_actor > 0 and torch.cuda.is_available() else "cpu"
            self._loaded = (
                model.path,
                Encoder(
                    load_model(str(self.store.resolve(model.path)), self.config.precision, device),
                    self.config.batch_size,
                ),
            )
        return self._loaded[1]

    def _run(self, encoder: Encoder, task: AbsTask) -> TaskResult:
        options = {"batch_size": self.config.batch_size, "show_progress_bar": False}
        try:
            with threadpool_limits(self.threads):  # the probes of scikit-learn would take every core
                found = mteb.evaluate(
                    encoder, task, encode_kwargs=options, cache=None, co2_tracker=False, show_progress_bar=False
                )
        except Exception as error:
            if type(error).__name__ in OFFLINE_ERRORS:
                raise EvaluationError(
                    f"The data of mteb's task {task.metadata.name} is not on this machine and the hub cannot be "
                    f"reached: {error}. Evaluate it once where there is a network, or leave it out."
                ) from error
            raise
        if not found.task_results:
            raise EvaluationError(f"mteb gave no result for {task.metadata.name}: {found.exceptions}")
        return found.task_results[0]


def _instruction(task: TaskConfig, loaded: AbsTask) -> str:
    """The configured instruction; for mteb's own tasks without one, mteb's."""
    if task.instruction or task.path is not None:
        return task.instruction
    prompt = loaded.metadata.prompt
    if isinstance(prompt, dict):
        prompt = prompt.get("query")
    return str(prompt or loaded.abstask_prompt)


def _quiet() -> None:
    """No progress bars or advice from libraries inside an actor; what matters comes back as figures and errors."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()
    for name in ("mteb", "sentence_transformers", "transformers", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(mteb|sklearn|scipy)(\..*)?")
