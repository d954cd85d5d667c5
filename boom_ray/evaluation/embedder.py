"""Texts to embeddings for evaluation: the training engine's forward pass over a loaded sentence-transformers model.

Texts are sorted by length and cut into forward passes by tokens, in the form that `boom_ray.model.layout` chooses, so
that little padding is computed. Models with parts that the engine does not know go through sentence-transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import nn

from boom_ray.artifacts.tokens import F32, I32
from boom_ray.errors import ModelError
from boom_ray.evaluation.scores import Manner
from boom_ray.model.encoder import Encoder
from boom_ray.model.layout import set_layout
from boom_ray.model.pooling import MODES
from boom_ray.model.steps import StepSettings, embed

BLOCK_TEXTS, BLOCK_CHARACTERS = 4096, 1 << 18  # what is tokenised and cut at once, and what others may compute
CPU_TOKENS, GPU_TOKENS = 2048, 32768  # of one forward pass
TOKEN_BYTES, TEXT_BYTES = 1 << 28, 200  # of tokens that are kept; what one text takes beside its tokens
log = logging.getLogger(__name__)


class Embedder(Protocol):
    """What embeds.

    Attributes:
        has_roles: whether the role of a text may change its embedding.
    """

    has_roles: bool

    def embed(self, texts: Sequence[str], manner: Manner) -> F32:
        """(n, d) embeddings of one block of texts, each with the prompt in front of it, as what they are."""


def blocks(texts: Sequence[str]) -> list[list[int]]:
    """Places of the texts, longest first, in blocks of at most so many texts and characters, at least one text."""
    found: list[list[int]] = []
    room = 0
    for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
        size = len(texts[place])
        if not found or len(found[-1]) == BLOCK_TEXTS or size > room:
            found.append([])
            room = BLOCK_CHARACTERS
        found[-1].append(place)
        room -= size
    return found


def make_embedder(model: SentenceTransformer, batch_size: int) -> Embedder:
    """The fastest embedder that gives this model's embeddings.

    Args:
        model: loaded, on its device.
        batch_size: texts per forward pass where sentence-transformers must do it.
    """
    has_roles = tells_roles_apart(model)
    reason = "it tells queries and documents apart" if has_roles else unknown_part(model)
    if reason is None:
        return EngineEmbedder(model)
    log.info("Embedding through sentence-transformers: %s.", reason)
    return LibraryEmbedder(model, batch_size, has_roles)


def tells_roles_apart(model: SentenceTransformer) -> bool:
    """Whether a text may have another embedding as a query than as a document, the prompt aside."""
    if "task" in model.get_model_kwargs():  # a Router, or a module of the model's own
        return True
    for module in model.modules():
        if any(getattr(module, name, None) for name in ("query_length", "document_length", "query_expansion")):
            return True
        if set(getattr(module, "modality_config", None) or {"text": None}) != {"text"}:
            return True  # a chat template may ask for the role
    return False


def unknown_part(model: SentenceTransformer) -> str | None:
    """Why the engine cannot compute a model's embeddings; None if it can."""
    parts = {type(module).__name__: module for module in model}
    names = [type(module).__name__ for module in model]
    middle = [name for name in names[2:] if name not in {"Dense", "Normalize"}]
    if names[:2] != ["Transformer", "Pooling"] or middle or "Normalize" in names[:-1]:
        return f"its modules are {', '.join(names)}"
    pooling, transformer = parts["Pooling"], parts["Transformer"]
    if str(pooling.pooling_mode) not in MODES or not pooling.include_prompt:
        return f"it pools by {pooling.pooling_mode}" + ("" if pooling.include_prompt else ", without the prompt")
    if not getattr(transformer.tokenizer, "is_fast", False):
        return "its tokenizer has no fast form"
    if model.truncate_dim is not None:
        return "its embeddings are cut"
    for module in model:
        places = {getattr(module, "module_input_name", None), getattr(module, "module_output_name", None)}
        if type(module).__name__ == "Dense" and places - {None, "sentence_embedding"}:
            return "a Dense module is about something else than the embedding"
    if getattr(transformer, "processing_kwargs", None):
        return "its tokenizer has settings of its own"
    if not hasattr(transformer.model.config, "hidden_size"):
        return "its configuration does not say how wide it is"
    return None


class LibraryEmbedder:
    """Through sentence-transformers itself."""

    def __init__(self, model: SentenceTransformer, batch_size: int, has_roles: bool = False) -> None:
        """Keep the model."""
        self.model, self.batch_size, self.has_roles = model, batch_size, has_roles

    def embed(self, texts: Sequence[str], manner: Manner) -> F32:
        """See `Embedder`; as `encode_query` and `encode_document` do it, but for their choice of prompts."""
        role = {"task": manner.role} if manner.role else {}
        found = self.model.encode(
            list(texts), prompt=manner.prompt, batch_size=self.batch_size, show_progress_bar=False, **role
        )
        return np.asarray(found, dtype=np.float32)


class EngineEmbedder:
    """Through the training engine's forward pass, which shares the model's weights.

    Args:
        model: one without `unknown_part`.

    Attributes:
        kept: tokens of texts that will be embedded again, with other weights; None: nothing is kept.

    Raises:
        ModelError: it has no blocks that the engine finds.
    """

    has_roles = False
    kept: KeptTokens | None = None

    def __init__(self, model: SentenceTransformer) -> None:
        """Take the parts of the model and choose the form of texts."""
        transformer, pooling, *rest = model
        layers: list[Any] = [_Layer(module) for module in rest if type(module).__name__ == "Dense"]
        is_unit = any(type(module).__name__ == "Normalize" for module in rest)
        self.encoder = Encoder(transformer.model, str(pooling.pooling_mode), is_unit, layers).eval()
        on_gpu = self.encoder.device.type == "cuda"
        self.settings = StepSettings(
            layout=set_layout(self.encoder, "auto"),
            pad_id=self.encoder.pad_id,
            micro_batch_tokens=GPU_TOKENS if on_gpu else CPU_TOKENS,
        )
        self.tokenizer = _tokenizer(transformer.tokenizer, self.encoder.table_room)

    def embed(self, texts: Sequence[str], manner: Manner) -> F32:
        """See `Embedder`; texts of the same tokens are embedded once, so they are equal to the last bit."""
        prompted = [manner.prompt + text for text in texts]
        tokens = self._tokenize(prompted) if self.kept is None else self.kept.look_up(prompted, self._tokenize)
        keys = [own.tobytes() for own in tokens]
        distinct = dict(zip(keys, tokens, strict=True))
        places = dict(zip(distinct, range(len(distinct)), strict=True))
        vectors = embed(self.encoder, list(distinct.values()), self.settings).float().cpu().numpy()
        return np.asarray(vectors[[places[key] for key in keys]])

    def _tokenize(self, texts: Sequence[str]) -> list[I32]:
        return [np.array(one.ids, dtype=np.int32) for one in self.tokenizer.encode_batch_fast(list(texts))]


class KeptTokens:
    """Tokens of texts; once they take all the memory that they may, those of further texts are not kept."""

    def __init__(self, most: int = TOKEN_BYTES) -> None:
        """Keep ``most`` bytes."""
        self.most, self.held = most, 0
        self._tokens: dict[bytes, I32] = {}

    def look_up(self, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[I32]]) -> list[I32]:
        """Tokens of each text; ``tokenize`` is called for those that are not known, each once."""
        keys = [blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts]
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._tokens}
        found = dict(zip(fresh, tokenize(list(fresh.values())), strict=True)) if fresh else {}
        for key, tokens in found.items():
            if self.held + tokens.nbytes + TEXT_BYTES <= self.most:
                self.held += tokens.nbytes + TEXT_BYTES
                self._tokens[key] = tokens
        return [found[key] if key in found else self._tokens[key] for key in keys]


class _Layer(nn.Module):
    """A Dense module of sentence-transformers as a function of embeddings."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module, self.linear = module, module.linear

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        features = {"sentence_embedding": vectors.to(self.linear.weight.dtype)}
        found: torch.Tensor = self.module(features)["sentence_embedding"]
        return found.float()


def _tokenizer(tokenizer: Any, room: int | None) -> Tokenizer:
    """The library's own tokenizer, which cuts texts as sentence-transformers would."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    limits = [limit for limit in (tokenizer.model_max_length, room) if limit is not None and 0 < limit < 1 << 31]
    if limits:
        own.enable_truncation(int(min(limits)), direction=tokenizer.truncation_side)
    else:
        own.no_truncation()
    if not own.encode("a").ids:
        raise ModelError("The model's tokenizer makes no tokens of the text 'a'.")
    return own
