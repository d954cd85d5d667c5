"""One model on one task, here and now, without Ray; what an evaluation actor holds."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from boom_ray.evaluation.queries import watch_queries
from boom_ray.evaluation.scores import Manner, ModelRef
from boom_ray.evaluation.sharing import Sharer
from boom_ray.evaluation.subsets import Examined, keep, score_subsets, separate_subsets
from boom_ray.store import Store

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

        Of a task of mteb with several subsets each leaves its own artifact, too; see `boom_ray.evaluation.subsets`.

        Raises:
            EvaluationError: the task's data is faulty or unreachable, or its score is not a number.
            ModelError: the model cannot be loaded.
        """
        subsets = separate_subsets(load_task(task, self.config.seed)) if task.path is None else ()
        if subsets:
            found = score_subsets(self.store, task, spec, inputs, subsets, functools.partial(self.examine, model))
        else:
            found = self.examine(model, task, spec.get("data"))
        artifact = keep(self.store, task, spec, inputs, found)
        return artifact.key, artifact.figures

    def measure(self, model: ModelRef, task: TaskConfig) -> tuple[TaskResult, dict[str, Any]]:
        """Mteb's result of one pair, and the figures that the artifact keeps."""
        return self.examine(model, task)[:2]

    def examine(self, model: ModelRef, task: TaskConfig, hashes: Mapping[str, str] | None = None) -> Examined:
        """The same, and the main metric of every query where there is one; for ``hashes`` see `load_task`."""
        started = time.monotonic()
        encoder = self._encoder(model)
        encoder.sharer = Sharer(self.board, model) if self.board is not None else None
        loaded = load_task(task, self.config.seed, hashes)
        queries = watch_queries(loaded)
        result, figures = self.run(encoder, model, task, loaded)
        figures["seconds"] = round(time.monotonic() - started, 3)
        return result, figures, queries()

    def run(
        self, encoder: Encoder, model: ModelRef, task: TaskConfig, loaded: AbsTask
    ) -> tuple[TaskResult, dict[str, Any]]:
        """Evaluate a loaded model on a loaded task, and nothing else.

        Args:
            encoder: the model.
            model: its name for errors, and its templates.
            task: what was loaded.
            loaded: the mteb task.

        Returns:
            Mteb's result, and the figures that are no times.

        Raises:
            EvaluationError: see `score`.
        """
        parts = [part.metadata.name for part in getattr(loaded, "tasks", ())]
        encoder.use_prompts(task_prompts(model, task, _instruction(task, loaded), parts))
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
            "revision": loaded.metadata.revision,
            "prompts": encoder.used_prompts,
        }
        return result, figures

    def embed_block(self, model: ModelRef, texts: Sequence[str], manner: Manner) -> F32:
        """Embed a block of another actor's task."""
        return self._encoder(model).embed_block(texts, manner)

    def _encoder(self, model: ModelRef) -> Encoder:
        if self._loaded is None or self._loaded[0] != model.path:
            self._loaded = None  # frees the last model before the next one is read
            self._loaded = (model.path, self.load(model.path))
        return self._loaded[1]

    def load(self, path: str) -> Encoder:
        """The model of a folder or an artifact's place, on the device that this process has.

        Raises:
            ModelError: it cannot be loaded.
        """
        device = "cuda" if self.config.gpus_per_actor > 0 and torch.cuda.is_available() else "cpu"
        model = load_model(str(self.store.resolve(path)), self.config.precision, device)
        return Encoder(model, self.config.batch_size)

    def _run(self, encoder: Encoder, task: AbsTask) -> TaskResult:
        options = {"batch_size": self.config.batch_size, "show_progress_bar": False}
        with (
            hub_data(task.metadata.name),
            threadpool_limits(self.threads),  # the probes of scikit-learn would take every core
        ):
            found = mteb.evaluate(
                encoder, task, encode_kwargs=options, cache=None, co2_tracker=False, show_progress_bar=False
            )
        if not found.task_results:
            raise EvaluationError(f"mteb gave no result for {task.metadata.name}: {found.exceptions}")
        return found.task_results[0]


@contextlib.contextmanager
def hub_data(name: str) -> Iterator[None]:
    """Say in words when the data of one of mteb's own tasks cannot be had.

    Raises:
        EvaluationError: it is not on this machine and the hub cannot be reached.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ in OFFLINE_ERRORS:
            raise EvaluationError(
                f"The data of mteb's task {name} is not on this machine and the hub cannot be reached: {error}. "
                f"Evaluate it once where there is a network, or leave it out."
            ) from error
        raise


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
