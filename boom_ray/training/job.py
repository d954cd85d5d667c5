"""What a member is made from: everything that determines it, and where its inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boom_ray.config import ModelConfig, TrainingConfig
from boom_ray.model.losses.policy import Policy
from boom_ray.store import artifact_key

KIND = "member"
VERSION = 3


@dataclass(frozen=True)
class MemberJob:
    """Everything that determines one member, and where its inputs are.

    Attributes:
        name: for messages; in no key.
        bag: fingerprint of the bag.
        bag_key: key of the bag's artifact.
        corpus: fingerprint of the corpus; the bag says which examples, the corpus what their tokens are.
        parts: dataset to the keys of its token parts.
        policies: dataset to its loss.
        base: fingerprint of the base's artifact.
        base_place: where it is, see `boom_ray.store.Artifact.place`.
        model: the base and how it becomes an encoder.
        training: how it is trained.
        seed: seed of dropout, of the choice of negatives, and of new layers and adapters.
        prompts: what the saved model stores as prompts.
        max_tokens: longest text that the saved model reads; tokens.
        longest: longest text of the corpus; tokens; in no key.
    """

    name: str
    bag: str
    bag_key: str
    corpus: str
    parts: dict[str, list[str]]
    policies: dict[str, Policy]
    base: str
    base_place: str
    model: ModelConfig
    training: TrainingConfig
    seed: int
    prompts: dict[str, str]
    max_tokens: int
    longest: int = 512

    def spec(self) -> dict[str, Any]:
        """The fields that determine the member's weights and folder."""
        model = self.model.identity()
        for origin in ("base", "revision", "dense"):
            model.pop(origin)  # the fingerprint of the base's weights says it better
        found = {
            "model": model,
            "training": self.training.identity(),
            "seed": self.seed,
            "policies": {name: policy.identity() for name, policy in sorted(self.policies.items())},
            "prompts": self.prompts,
            "max_tokens": self.max_tokens,
        }
        if self.model.lora is not None and self.model.lora.dropout > 0:
            found["masks"] = self.training.masks()
        return found

    def inputs(self) -> dict[str, Any]:
        """What it is trained from."""
        return {"bag": self.bag, "corpus": self.corpus, "base": self.base}

    @property
    def key(self) -> str:
        """Key of the member's artifact."""
        return artifact_key(KIND, self.spec(), self.inputs(), VERSION)
