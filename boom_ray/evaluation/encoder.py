"""A sentence-transformers model as mteb sees it: its own wrapper with checks, prompts on record, and no text twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from boom_ray.config import TaskConfig
from boom_ray.config.model import TASK, TEXT
from boom_ray.errors import EvaluationError, ModelError
from boom_ray.evaluation.scores import ModelRef
from boom_ray.model.folder import check_folder


def load_model(path: str, precision: Literal["float32", "bfloat16"], device: str = "cpu") -> SentenceTransformer:
    """Load a local folder: safetensors only, no code of the model's own, nothing from the hub.

    Raises:
        ModelError: the folder is incomplete or of a kind that sentence-transformers does not know.
    """
    check_folder(Path(path))
    options = {"use_safetensors": True, "dtype": getattr(torch, precision)}
    try:
        return SentenceTransformer(
            path,
            device=device,
            local_files_only=True,
            trust_remote_code=False,  # said, not left to a default: a model folder never runs code of its own
            model_kwargs=options,
        )
    except Exception as error:  # transformers raises OSError, KeyError, RuntimeError… for a folder it cannot use
        raise ModelError(f"The model in {path} cannot be loaded: {type(error).__name__}: {error}") from error


class Encoder(SentenceTransformerEncoderWrapper):  # type: ignore[misc]  # mteb is untyped here
    """mteb's wrapper, except that equal texts of one call are encoded once and embeddings are checked.

    Attributes:
        used_prompts: what stood before the texts of the last task, by role (``query``, ``document`` or ``text``).
    """

    def __init__(self, model: SentenceTransformer) -> None:
        """Wrap a loaded model; its stored prompts apply until `use_prompts` is called."""
        super().__init__(model)
        self.stored_prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt is not None}
        self.used_prompts: dict[str, str] = {}
        self.model_prompts = self.stored_prompts

    def use_prompts(self, prompts: Mapping[str, str] | None) -> None:
        """Take these prompts, in mteb's naming, or with None those stored in the model's folder; start a new record."""
        self.model_prompts = self.stored_prompts if prompts is None else dict(prompts)
        self.used_prompts = {}

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any) -> Any:
        """Embed all texts of a data loader.

        Returns:
            float32 array of shape (texts, dimensions).

        Raises:
            EvaluationError: an embedding holds NaN or infinity.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        unique = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = (self.model_prompts or {}).get(name or "")
        default = self.stored_prompts.get(self.model.default_prompt_name or "", "")
        self.used_prompts[prompt_type.value if prompt_type else "text"] = default if prompt is None else prompt
        options = {key: kwargs[key] for key in ("batch_size", "show_progress_bar") if key in kwargs}
        vectors = np.asarray(self._function(prompt_type)(list(unique), prompt=prompt, **options), dtype=np.float32)
        if not np.isfinite(vectors).all():
            bad = next(text for text, number in unique.items() if not np.isfinite(vectors[number]).all())
            raise EvaluationError(
                f"The embedding of {bad[:60]!r} holds NaN or infinity; the model's weights are broken."
            )
        return vectors[[unique[text] for text in texts]]

    def _function(self, prompt_type: Any) -> Any:
        if prompt_type == PromptType.query:
            return self.model.encode_query
        return self.model.encode_document if prompt_type == PromptType.document else self.model.encode


def task_prompts(model: ModelRef, task: TaskConfig, instruction: str) -> dict[str, str] | None:
    """The prompts that the model's templates give for a task, in mteb's naming; None: those stored in the folder.

    Texts of symmetric tasks (all but retrieval and reranking) are encoded as queries, as in training.
    """
    if not model.has_templates:
        return None
    passage = model.passage_template.removesuffix(TEXT).replace(TASK, task.passage_instruction)
    query = model.query_template.removesuffix(TEXT).replace(TASK, instruction)
    return {task.name: query, f"{task.name}-document": passage}
