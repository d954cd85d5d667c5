"""What a member is made from: everything that determines it, and where its inputs are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from boom_ray.config import ModelConfig, TrainingConfig
from boom_ray.model.losses.policy import Policy
from boom_ray.store import artifact_key

KIND = "member"
TRUNK = "trunk"
VERSION = 3
SHORT = 6  # digits of a trunk's key in its name


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
        trunk: what to begin with instead of the base: the member's own first steps, trained already; in no key, for
            it saves work and changes nothing.
    """

    kind: ClassVar[str] = KIND

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
    trunk: TrunkJob | None = None

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
        """Key of the artifact that is left."""
        return artifact_key(self.kind, self.spec(), self.inputs(), VERSION)


@dataclass(frozen=True)
class TrunkJob(MemberJob):
    """The first steps of members that branch off; it leaves weights, moments and progress as they are then.

    Attributes:
        steps: so many.
    """

    kind: ClassVar[str] = TRUNK
    steps: int = 0

    @classmethod
    def of(cls, job: MemberJob, steps: int, trunk: TrunkJob | None) -> Self:
        """The first ``steps`` steps of a member whose rate does not fall in them.

        Args:
            job: the member.
            steps: a whole number of updates.
            trunk: the first of them, trained already.
        """
        defaults = TrainingConfig()
        unused = {"decay_ratio": defaults.decay_ratio, "max_steps": None, "average_last": None, "branches": False}
        training = job.training.model_copy(update={"decay": "constant", **unused})
        own = {field.name: getattr(job, field.name) for field in fields(MemberJob)}
        made = cls(**{**own, "training": training, "trunk": trunk}, steps=steps)
        return replace(made, name=f"trunk-{steps}~{made.key[:SHORT]}")

    def spec(self) -> dict[str, Any]:
        """The fields that determine weights and moments, and the form in which they are left."""
        found = super().spec()
        del found["prompts"], found["max_tokens"]
        return found | {"steps": self.steps, "parallelism": self.training.parallelism}
