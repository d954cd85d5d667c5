"""What goes into an evaluation and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from boom_ray.config.model import TEXT, ModelConfig
from boom_ray.evaluation.routed import check_model, model_hashes

Group = Literal["in_domain", "out_of_domain"]
GROUPS: tuple[Group, ...] = ("in_domain", "out_of_domain")
Role = Literal["query", "document"]


class Manner(NamedTuple):
    """How texts are embedded.

    Attributes:
        prompt: what stands before each.
        role: what they are; None if they are neither, or if the model does not tell the roles apart.
    """

    prompt: str = ""
    role: Role | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model to evaluate.

    Attributes:
        name: how it is called in tables; unique within one evaluation.
        path: sentence-transformers folder that every machine of the cluster sees, or an artifact's place.
        fingerprint: hash of its weights.
        prompts_digest: hash of all else that determines its embeddings (tokenizer, pooling, stored prompts).
        query_template: ``{task}`` and ``{text}`` of a query; with both templates bare, the prompts stored in the
            folder are used by mteb's rules (task name, then task type, then query or document).
        passage_template: ``{text}`` of a passage.
    """

    name: str
    path: str
    fingerprint: str
    prompts_digest: str
    query_template: str = TEXT
    passage_template: str = TEXT

    @classmethod
    def of(cls, name: str, folder: str | Path, config: ModelConfig | None = None) -> ModelRef:
        """Refer to a folder: check it, hash its weights, take the templates of ``config`` if there is one.

        Raises:
            ModelError: the folder is incomplete or has no safetensors weights.
        """
        path = Path(folder).absolute()
        check_model(path)
        query = config.query_template if config else TEXT
        passage = config.passage_template if config else TEXT
        return cls(name, str(path), *model_hashes(path), query, passage)

    @property
    def has_templates(self) -> bool:
        """Whether instructions are put into templates, instead of the prompts stored in the folder."""
        return self.query_template != TEXT or self.passage_template != TEXT


@dataclass(frozen=True)
class Score:
    """The main score of one model on one task.

    Attributes:
        model: name of the `ModelRef`.
        task: name of the task.
        type: mteb's task type (``Retrieval``, ``STS``…).
        group: ``in_domain`` or ``out_of_domain``.
        metric: mteb's name of the main score (``ndcg_at_10``, ``cosine_spearman``…).
        value: 1 is perfect; correlations lie in [-1, 1], all others in [0, 1].
        seconds: time the evaluation took when it was computed.
        cached: it was in the store already.
        key: key of the artifact (kind ``scores``) with mteb's result file.
    """

    model: str
    task: str
    type: str
    group: Group
    metric: str
    value: float
    seconds: float
    cached: bool
    key: str = ""


@dataclass(frozen=True)
class Failure:
    """A task that could not be evaluated; the others are not affected."""

    model: str
    task: str
    error: str


@dataclass(frozen=True)
class Evaluation:
    """Scores in the order models × tasks were given, and what failed."""

    scores: tuple[Score, ...]
    failures: tuple[Failure, ...] = ()
