"""A sentence-transformers model as mteb sees it: its own wrapper with checks, prompts on record, and no text twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from boom_ray.artifacts.tokens import F32
from boom_ray.config import TaskConfig
from boom_ray.config.model import TASK, TEXT
from boom_ray.errors import EvaluationError, ModelError
from boom_ray.evaluation.embedder import blocks, make_embedder
from boom_ray.evaluation.routed import check_model
from boom_ray.evaluation.scores import Manner, ModelRef
from boom_ray.evaluation.sharing import Sharer
from boom_ray.model.products import FastProducts

MEMO_BYTES = 1 << 30


def load_model(path: str, precision: Literal["float32", "bfloat16"], device: str = "cpu") -> SentenceTransformer:
    """Load a local folder: safetensors only, no code of the model's own, nothing from the hub.

    Raises:
        ModelError: the folder is incomplete or of a kind that sentence-transformers does not know.
    """
    check_model(Path(path))
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
    """mteb's wrapper of a model, with our forward pass, checks, prompts on record, and no text embedded twice.

    Attributes:
        used_prompts: what stood before the texts of the last task, by role (``query``, ``document`` or ``text``).
        sharer: who else may embed blocks of many texts.
    """

    def __init__(self, model: SentenceTransformer, batch_size: int = 64) -> None:
        """Wrap a loaded model; its stored prompts apply until `use_prompts` is called."""
        super().__init__(model)
        self.stored_prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt is not None}
        self.used_prompts: dict[str, str] = {}
        self.model_prompts = self.stored_prompts
        self.embedder = make_embedder(model, batch_size)
        self.sharer: Sharer | None = None
        self._known = Memo()

    def use_prompts(self, prompts: Mapping[str, str] | None) -> None:
        """Take these prompts, in mteb's naming, or with None those stored in the model's folder; start a new record."""
        self.model_prompts = self.stored_prompts if prompts is None else dict(prompts)
        self.used_prompts = {}

    def forget(self) -> None:
        """The model's weights have changed: no text is embedded yet."""
        self._known = Memo()

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any) -> Any:
        """Embed all texts of a data loader.

        Returns:
            float32 array of shape (texts, dimensions).

        Raises:
            EvaluationError: an embedding holds NaN or infinity.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = self._prompt((self.model_prompts or {}).get(name or ""), prompt_type)
        self.used_prompts[prompt_type.value if prompt_type else "text"] = prompt
        role = prompt_type.value if prompt_type and self.embedder.has_roles else None
        return self._known.look_up(texts, Manner(prompt, role), self._embed)

    def _embed(self, texts: Sequence[str], manner: Manner) -> F32:
        """All blocks of the texts, here or, with a sharer, also elsewhere."""
        places = blocks(texts)
        pieces = [[texts[place] for place in own] for own in places]
        if self.sharer is not None and len(pieces) > 1:
            found = self.sharer.run(pieces, manner, self.embed_block)
        else:
            found = [self.embed_block(piece, manner) for piece in pieces]
        vectors = np.empty((len(texts), found[0].shape[1]), dtype=np.float32)
        for own, piece in zip(places, found, strict=True):
            vectors[own] = piece
        return vectors

    def embed_block(self, texts: Sequence[str], manner: Manner) -> F32:
        """(n, d) embeddings of a block, checked.

        Raises:
            EvaluationError: an embedding holds NaN or infinity.
        """
        with FastProducts():
            vectors = self.embedder.embed(texts, manner)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            bad = texts[int(np.argmin(finite))]
            raise EvaluationError(
                f"The embedding of {bad[:60]!r} holds NaN or infinity; the model's weights are broken."
            )
        return vectors

    def _prompt(self, prompt: str | None, prompt_type: Any) -> str:
        """What sentence-transformers puts before a text of this role."""
        if prompt is not None:
            return prompt
        roles = {PromptType.query: ("query",), PromptType.document: ("document", "passage", "corpus")}
        names = [*roles.get(prompt_type, ()), self.model.default_prompt_name or ""]
        return next((self.stored_prompts[name] for name in names if name in self.stored_prompts), "")


class Memo:
    """Embeddings by text and manner, until they take too much memory: tasks of one model share texts."""

    def __init__(self, most: int = MEMO_BYTES) -> None:
        """Hold ``most`` bytes of embeddings."""
        self.most, self.held = most, 0
        self._vectors: dict[tuple[Manner, bytes], F32] = {}

    def look_up(self, texts: Sequence[str], manner: Manner, embed: Callable[[Sequence[str], Manner], F32]) -> F32:
        """(n, d) embeddings of texts; ``embed`` is called for those that are not known, each once."""
        keys = [(manner, blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()) for text in texts]
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        found = dict(zip(fresh, embed(list(fresh.values()), manner), strict=True)) if fresh else {}
        vectors = np.stack([found[key] if key in found else self._vectors[key] for key in keys])
        self.held += sum(vector.nbytes for vector in found.values())
        if self.held > self.most:
            self._vectors, self.held = {}, 0
        else:
            self._vectors |= found
        return vectors


def task_prompts(
    model: ModelRef, task: TaskConfig, instruction: str, parts: Sequence[str] = ()
) -> dict[str, str] | None:
    """The prompts that the model's templates give for a task, in mteb's naming; None: those stored in the folder.

    Texts of symmetric tasks (all but retrieval and reranking) are encoded as queries, as in training. ``parts`` names
    the tasks that an aggregate of mteb is made of, which ask for prompts by their own names.
    """
    if not model.has_templates:
        return None
    passage = model.passage_template.removesuffix(TEXT).replace(TASK, task.passage_instruction)
    query = model.query_template.removesuffix(TEXT).replace(TASK, instruction)
    found: dict[str, str] = {}
    for name in (task.name, *parts):
        found |= {name: query, f"{name}-document": passage}
    return found
