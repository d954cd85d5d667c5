"""The models that `jobs/merge.py` names: found, told apart, and given the fingerprints by which merges are cached."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boom_ray.config import MergeJobConfig, ModelEntry
from boom_ray.errors import ConfigError, ModelError
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.reading.adapters import adapter_fingerprint
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL
from boom_ray.model.folder import find_folder, is_adapter, modules, weights_fingerprint
from boom_ray.store import ARTIFACT, Artifact, Draft, Store, artifact_key

HASHED = "fingerprint"
"""Kind of the artifacts that keep a folder's fingerprint."""
SETTLED_S = 2.0
"""Files changed within these seconds may change again without a new time stamp; their fingerprints are not kept."""
SHORTEST_KEY = 6
SHOWN = 8


@dataclass(frozen=True)
class Found:
    """A model that the configuration names.

    Attributes:
        name: how it is called.
        place: folder on this machine, or the place of an artifact; see `Store.resolve`.
        artifact: the artifact, if it is one.
        examples: examples it was trained on; None when unknown.
    """

    name: str
    place: str
    artifact: Artifact | None = None
    examples: int | None = None


def find_models(store: Store, config: MergeJobConfig) -> MergeInputs:
    """Find members and base; nothing is hashed, so fingerprints of folders are still empty.

    Raises:
        ModelError: a model cannot be found or downloaded, or an artifact is none or several.
        ConfigError: members should be weighted by their sizes, and one's is not known.
    """
    members = [
        find_model(store, member.path, f"members.{place}.path", member.name, member.examples)
        for place, member in enumerate(config.members)
    ]
    if config.merge.weights == "size":
        unknown = next((place for place, one in enumerate(members) if one.examples is None), None)
        if unknown is not None:
            raise ConfigError(
                f"merge.weights=size needs the number of examples of {members[unknown].name}; set "
                f"members.{unknown}.examples."
            )
    base = find_model(store, config.base, "base", "base") if config.base is not None else None
    names = _names([member.name for member in config.members], [one.name for one in members])
    refs = [_ref(one, name) for one, name in zip(members, names, strict=True)]
    return MergeInputs(refs, _ref(base, "base") if base else None, pooling=config.model.pooling)


def find_all(store: Store, models: Sequence[ModelEntry]) -> list[MemberRef]:
    """Find models to evaluate; nothing is hashed.

    Raises:
        ModelError: a model cannot be found or downloaded, or an artifact is none or several.
    """
    found = [find_model(store, model.path, f"models.{place}.path", model.name) for place, model in enumerate(models)]
    names = _names([model.name for model in models], [one.name for one in found], taken=frozenset())
    return [_ref(one, name) for one, name in zip(found, names, strict=True)]


def find_model(store: Store, path: str, key: str, name: str | None = None, examples: int | None = None) -> Found:
    """Find one model.

    Args:
        store: where artifacts are.
        path: a folder, an artifact, a hub name or an embedded model.
        key: of the configuration, for errors.
        name: how it is called; None: as its folder.
        examples: examples it was trained on, if the user says so.

    Raises:
        ModelError: it cannot be found or downloaded, or the artifact is none or several.
    """
    if path.startswith(ARTIFACT):
        artifact = _artifact(store, path, key)
        known = artifact.figures.get("examples")
        counted = examples if examples is not None else known if isinstance(known, int) else None
        return Found(name or f"{artifact.kind}-{artifact.key[:SHORTEST_KEY]}", artifact.place(MODEL), artifact, counted)
    folder = find_folder(path, key=key)
    shown = path.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return Found(name or re.sub(r"[^\w.-]", "-", shown).strip(".-") or "member", str(folder), None, examples)


def _artifact(store: Store, path: str, key: str) -> Artifact:
    """The artifact of ``artifact:KIND/KEY``, which holds a model."""
    found = find_artifact(store, path, key)
    if not any(name.startswith(f"{MODEL}/") for name in found.files):
        raise ModelError(f"{key}: the artifact {found.kind}/{found.key} holds no model.{_known(store)}")
    return found


def find_artifact(store: Store, path: str, key: str) -> Artifact:
    """The artifact of ``artifact:KIND/KEY``; the beginning of a key is enough.

    Raises:
        ConfigError: the path is not of that form.
        ModelError: there is none, or there are several.
    """
    kind, _, wanted = path.removeprefix(ARTIFACT).partition("/")
    wanted = wanted.removesuffix(f"/{MODEL}").rstrip("/")
    if not re.fullmatch(r"[\w-]+", kind) or not re.fullmatch(f"[0-9a-f]{{{SHORTEST_KEY},32}}", wanted):
        raise ConfigError(
            f"{key}: {path} is not of the form artifact:KIND/KEY, with at least {SHORTEST_KEY} hexadecimal digits of "
            f"the key.{_known(store)}"
        )
    fitting = [one for _, one in store.finished(kind) if one.startswith(wanted)]
    found = store.get(kind, fitting[0]) if len(fitting) == 1 else None
    if len(fitting) > 1:
        raise ModelError(f"{key}: {len(fitting)} artifacts begin with {path}: {', '.join(fitting)}. Give more digits.")
    if found is None:
        raise ModelError(f"{key}: the store {store.root} has no artifact {kind}/{wanted}.{_known(store)}")
    return found


def _known(store: Store) -> str:
    """The models that the store has, for errors."""
    found = [
        f"{kind}/{one}"
        for kind, one in store.finished()
        if (artifact := store.get(kind, one)) and any(name.startswith(f"{MODEL}/") for name in artifact.files)
    ]
    if not found:
        return f" There are no models in {store.root}; set store to another place."
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f" Models in {store.root}: {', '.join(found[:SHOWN])}{more}."


def _names(
    given: Sequence[str | None], found: Sequence[str], taken: frozenset[str] = frozenset({"base", "merged"})
) -> list[str]:
    """The models' names; one that was not given gets a number where it would be used twice."""
    taken |= {name for name in given if name}
    result = []
    for own, name in zip(given, found, strict=True):
        free, number = own or name, 2
        while own is None and free in taken:
            free, number = f"{name}-{number}", number + 1
        taken |= {free}
        result.append(free)
    return result


def _ref(found: Found, name: str) -> MemberRef:
    return MemberRef(name, found.place, artifact_fingerprint(found.artifact), found.examples or 0)


def artifact_fingerprint(artifact: Artifact | None) -> str:
    """Hash of the model's weights; a base's own fingerprint says more than that."""
    if artifact is None:
        return ""
    return str(artifact.figures.get("weights", "")) if artifact.kind == "base" else artifact.fingerprint


def with_fingerprints(store: Store, inputs: MergeInputs, compute: bool = True, report: Report = silent) -> MergeInputs:
    """The models with the hashes of their weights; folders that have not changed since the last time are not read.

    Args:
        store: keeps fingerprints by folder and by the sizes and times of its files.
        inputs: as `find_models` gives them.
        compute: read folders whose fingerprint is not known; otherwise it stays empty, and nothing is written.
        report: told which folders are read; bytes.

    Raises:
        ModelError: weights cannot be read.
        MergeError: an adapter without a base, or one that cannot be read.
    """
    base = _hashed(store, inputs.base, "", compute, report) if inputs.base else None
    above = base.fingerprint if base else ""
    with ThreadPoolExecutor(4) as pool:
        members = list(pool.map(lambda member: _hashed(store, member, above, compute, report), inputs.members))
    return replace(inputs, members=members, base=base)


def _hashed(store: Store, ref: MemberRef, base: str, compute: bool, report: Report) -> MemberRef:
    if ref.fingerprint:
        return ref
    folder = store.resolve(ref.path)
    states = list(_states(folder))
    if is_adapter(folder):
        states.append(["base", base])
    spec = {"folder": str(folder), "files": states}
    known = store.get(HASHED, artifact_key(HASHED, spec, {}))
    if known is not None:
        return replace(ref, fingerprint=known.fingerprint)
    if not compute or (is_adapter(folder) and not base):
        return ref
    size = sum(state[1] for state in states if state[0] != "base")
    report(Event("merge", f"hash of {ref.name}", 0, size, measure="bytes"))
    found = adapter_fingerprint(folder, base) if is_adapter(folder) else weights_fingerprint(folder)
    report(Event("merge", f"hash of {ref.name}", size, size, measure="bytes"))
    newest = max((state[2] for state in states if len(state) > 2), default=0)
    if time.time_ns() - newest > SETTLED_S * 1e9:
        store.materialize(HASHED, spec, {}, lambda draft: _keep(draft, found))
    return replace(ref, fingerprint=found)


def _keep(draft: Draft, fingerprint: str) -> None:
    draft.fingerprint = fingerprint


def _states(folder: Path) -> Iterator[list[Any]]:
    """Name, size, time of change and number of all files that may hold or describe weights."""
    places = sorted({folder, *(module.path for module in modules(folder))})
    for path in sorted({path for place in places for path in place.glob("*") if path.is_file()}):
        if path.suffix in {".safetensors", ".json"}:
            state = path.stat()
            changed = max(state.st_ctime_ns, state.st_mtime_ns)
            yield [path.relative_to(folder).as_posix(), state.st_size, changed, state.st_ino]


def fingerprint_of_all(inputs: MergeInputs) -> str:
    """One hash of all models, in their order."""
    return digest([*(member.fingerprint for member in inputs.members), inputs.base.fingerprint if inputs.base else ""])
