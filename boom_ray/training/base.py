"""The base as an artifact: what every member starts from, in the very form in which members are saved.

Members load it from the store, so that no machine needs the hub, and it is scored beside them on equal terms: the same
pooling, tokenizer, prompts and text length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.config import ModelConfig
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.model.encoder import load_encoder, save_model
from boom_ray.model.folder import prompts_digest, resolve_base, weights_fingerprint
from boom_ray.model.tokenizer import load_tokenizer
from boom_ray.runtime import cause
from boom_ray.store import Artifact, Draft, Store, artifact_key

KIND = "base"
MODEL = "model"
VERSION = 2


@dataclass(frozen=True)
class BaseJob:
    """Everything that determines the base artifact.

    Attributes:
        model: which base, and how it becomes an encoder.
        weights: fingerprint of the configured base's weights.
        folder: digest of its tokenizer, configuration and pooling.
        prompts: what saved models store as prompts.
        max_tokens: longest text that saved models read; tokens.
        seed: of the first weights of new linear layers.
        longest: longest text that it must be able to read; tokens; in no key.
    """

    model: ModelConfig
    weights: str
    folder: str
    prompts: dict[str, str]
    max_tokens: int
    seed: int = 0
    longest: int = 0

    def spec(self) -> dict[str, Any]:
        """The fields that determine the saved folder; adapters come later and are not among them."""
        kept = self.model.identity()
        fields = ("pooling", "normalize", "append_eos", "dense")
        found = {name: kept[name] for name in fields} | {"prompts": self.prompts, "max_tokens": self.max_tokens}
        return found | ({"seed": self.seed} if self.model.dense else {})

    def inputs(self) -> dict[str, Any]:
        """What it is made from."""
        return {"weights": self.weights, "folder": self.folder}


def make_base(store: Store, job: BaseJob, report: Report = silent) -> Artifact:
    """The base's artifact, with the model in its folder ``model``; written in a Ray task if it is new.

    Raises:
        ModelError: the base cannot be trained: missing tensors, a module of an unsupported kind, too few positions.
    """
    found = store.get(KIND, artifact_key(KIND, job.spec(), job.inputs(), VERSION))
    note = "stored"
    if found is None:
        note = ""
        try:
            found = ray.get(ray.remote(num_cpus=1)(_write).remote(store, job))
        except ray.exceptions.RayError as error:
            raise cause(error) from error
    report(Event("members", "base", 1, 1, {}, note))
    return found


def _write(store: Store, job: BaseJob) -> Artifact:
    def build(draft: Draft) -> None:
        folder = draft.path / MODEL
        folder.mkdir()
        source = resolve_base(job.model)
        model = job.model.model_copy(update={"lora": None, "frozen": ()})
        encoder = load_encoder(source, model, seed=job.seed)
        encoder.check_length(job.longest)
        tokenizer = load_tokenizer(source, job.model)
        save_model(encoder, tokenizer, folder, job.prompts, job.max_tokens)
        draft.fingerprint = digest([weights_fingerprint(folder), prompts_digest(folder)])
        draft.figures |= {"weights": weights_fingerprint(folder)}

    return store.materialize(KIND, job.spec(), job.inputs(), build, VERSION)
