"""The prompts of an updated model: those that it has, and those of new datasets with instructions of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

from boom_ray.config import DatasetConfig, ModelConfig
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL
from boom_ray.model.folder import prompts_digest, read_json, stored_prompts, write_json
from boom_ray.store import Draft, Store

KIND = "prompted"
FILE = "config_sentence_transformers.json"


def extended(stored: Mapping[str, str], model: ModelConfig, fresh: Sequence[DatasetConfig]) -> dict[str, str]:
    """The prompts that a model stores after an update.

    What users of the model call by name stays as it is. A new dataset gets prompts of its own where it was not trained
    with those called ``query`` and ``document``: one of its name, and one for passages, see
    `boom_ray.flows.inputs.prompts`.

    Args:
        stored: the current model's.
        model: templates.
        fresh: the new datasets.
    """
    found = dict(stored)
    for one in fresh:
        query = model.query_prompt(one.instruction)
        passage = query if one.is_symmetric else model.passage_prompt(one.passage_instruction)
        if query != stored.get("query", ""):
            found[one.name] = query
        if passage != stored.get("document", ""):
            found[f"{one.name}-document"] = passage
    return found


def with_prompts(store: Store, ref: MemberRef, prompts: Mapping[str, str]) -> MemberRef:
    """The model with these prompts; a copy, as an artifact, if it has others, since models to merge must agree.

    Weights are hard-linked where the file system can.
    """
    source = store.resolve(ref.path)
    if stored_prompts(source) == prompts:
        return ref

    def build(draft: Draft) -> None:
        target = draft.path / MODEL
        shutil.copytree(source, target, copy_function=_link_weights)
        write_json(target / FILE, {**read_json(target / FILE), "prompts": dict(prompts)})
        draft.fingerprint = ref.fingerprint

    inputs = {"weights": ref.fingerprint, "folder": prompts_digest(source)}
    copy = store.materialize(KIND, {"prompts": dict(prompts)}, inputs, build)
    return replace(ref, path=copy.place(MODEL))


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
