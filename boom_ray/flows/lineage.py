"""How a model came to be: what a run and every update of it leave, so that the next update can begin there.

A lineage is an artifact of its own: made from the artifacts that it names, never changed, found by its key or by the
name of its run or update. Taking an update back is naming an earlier lineage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boom_ray.bags.sampling import quotas
from boom_ray.bags.stage import CORE
from boom_ray.config import EvaluationConfig, RunConfig, TaskConfig
from boom_ray.config.load import validate
from boom_ray.disk import MANIFEST
from boom_ray.errors import ConfigError, StoreError
from boom_ray.flows.ingredients import find_artifact
from boom_ray.flows.inputs import PREFIX
from boom_ray.flows.members import Foundation, Planned
from boom_ray.flows.merge.record import NOT_IN_RESULT
from boom_ray.flows.summary import MODELS, linked_model
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL
from boom_ray.store import ARTIFACT, Artifact, Draft, Store

KIND = "lineage"
FILE = "lineage.json"
VERSION = 2
GROUPS = ("in_domain", "out_of_domain", "selection")
SHOWN = 8


@dataclass(frozen=True)
class Layer:
    """The data that a run or an update brought.

    Attributes:
        name: of the run or update.
        corpus: key of the corpus with these datasets only.
        core: what later updates replay of it, as ``KIND/KEY``.
        examples: dataset to examples that a member on everything draws from.
    """

    name: str
    corpus: str
    core: str
    examples: dict[str, int]


@dataclass(frozen=True)
class Ancestor:
    """A member that is in the model, directly or through models that were merged again.

    Attributes:
        name: of its bag, or of the update that trained it.
        key: of its artifact.
        fingerprint: of its weights.
        bag: key of its bag.
        examples: seen in training.
        seconds: that its training took.
    """

    name: str
    key: str
    fingerprint: str
    bag: str
    examples: int
    seconds: float

    @classmethod
    def of(cls, name: str, member: Artifact, bag: Artifact) -> Ancestor:
        """A member as the store has it."""
        figures = member.figures
        return cls(name, member.key, member.fingerprint, bag.key, int(figures["examples"]), float(figures["seconds"]))

    @property
    def ref(self) -> MemberRef:
        """The member as one to merge."""
        return MemberRef(self.name, f"{ARTIFACT}member/{self.key}/{MODEL}", self.fingerprint, self.examples)


@dataclass(frozen=True)
class Lineage:
    """What a model was made from.

    Attributes:
        name: of the run or update.
        config: of everything so far: all datasets, all tasks; what was merged how is in ``recipe``.
        base: key of the base that all members were trained from.
        corpus: key of the corpus of all datasets.
        layers: the data, in the order in which it came.
        members: the members, likewise.
        merged: key of the merged model.
        recipe: of the last merge.
        ancestors: keys of the lineages before this one, the run's first.
        key: of the lineage's own artifact.
    """

    name: str
    config: RunConfig
    base: str
    corpus: str
    layers: tuple[Layer, ...]
    members: tuple[Ancestor, ...]
    merged: str
    recipe: dict[str, Any]
    ancestors: tuple[str, ...] = ()
    key: str = ""

    @property
    def examples(self) -> dict[str, int]:
        """Dataset to examples, of all layers."""
        return {name: count for layer in self.layers for name, count in layer.examples.items()}


def keep_run(
    store: Store,
    config: RunConfig,
    foundation: Foundation,
    planned: Planned,
    members: Mapping[str, Artifact],
    merged: Artifact,
) -> Lineage:
    """Leave the lineage of a run.

    Args:
        store: where it goes.
        config: the run, as the user gave it.
        foundation: its base and corpus.
        planned: its bags, with the core.
        members: bag name to member; the baseline may be among them.
        merged: the merged model.
    """
    core, corpus = planned.bags[CORE], foundation.corpus
    drawn = quotas(foundation.sizes, **config.bags.mixture.identity())
    layer = Layer(config.name, corpus.key, f"{core.kind}/{core.key}", drawn)
    names = [bag.name for bag in config.bags.resolved()]
    found = tuple(Ancestor.of(name, members[name], planned.bags[name]) for name in names)
    made = (foundation.base.key, corpus.key, (layer,), found, merged.key, merged.spec)
    return keep(store, Lineage(config.name, config, *made))


def keep(store: Store, lineage: Lineage) -> Lineage:
    """Write a lineage, unless the store has it; returns it with its key."""
    found = {name: value for name, value in asdict(lineage).items() if name not in {"config", "key"}}
    config = lineage.config.model_copy(update={"evaluation": with_absolute_paths(lineage.config.evaluation)})
    found["config"] = config.model_dump(mode="json")
    decides = {name: value for name, value in lineage.config.identity().items() if name not in NOT_IN_RESULT}
    inputs = {name: found[name] for name in ("base", "corpus", "merged", "ancestors")}
    inputs |= {"cores": [layer.core for layer in lineage.layers], "members": [one.key for one in lineage.members]}

    def build(draft: Draft) -> None:
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (draft.path / FILE).write_text(text + "\n", encoding="utf-8")

    return read(store.materialize(KIND, {"name": lineage.name, "config": decides}, inputs, build, VERSION))


def read(artifact: Artifact) -> Lineage:
    """A lineage of the store.

    Raises:
        StoreError: it was written by another version.
    """
    found = json.loads((artifact.local() / FILE).read_text(encoding="utf-8"))
    try:
        config = validate(RunConfig, found.pop("config"), f"the configuration in {artifact.kind}/{artifact.key}")
        found["layers"] = tuple(Layer(**layer) for layer in found["layers"])
        found["members"] = tuple(Ancestor(**member) for member in found["members"])
        found["ancestors"] = tuple(found["ancestors"])
        return Lineage(config=config, key=artifact.key, **found)
    except (ConfigError, TypeError, KeyError) as error:
        raise StoreError(
            f"{artifact.uri} was left by another version of boom_ray: {error}. Run the job that made it again."
        ) from error


def with_absolute_paths(config: EvaluationConfig) -> EvaluationConfig:
    """The tasks with absolute paths, for an update may be started in another directory."""
    return config.model_copy(
        update={group: tuple(absolute(task) for task in getattr(config, group)) for group in GROUPS}
    )


def absolute(task: TaskConfig) -> TaskConfig:
    """A task whose folder's path is absolute."""
    if task.path is None or task.path.startswith(PREFIX):
        return task
    return task.model_copy(update={"path": str(Path(task.path).expanduser().absolute())})


def find_lineage(store: Store, current: str) -> tuple[Lineage, str]:
    """Find what an update begins with.

    Args:
        store: where it is.
        current: ``artifact:lineage/KEY`` (the beginning of a key is enough), or the name of a run or update, whose
            lineage is taken; of several the newest whose model ``models/NAME`` in the store shows.

    Returns:
        The lineage, and a sentence that says which one it is and which others have its name.

    Raises:
        ConfigError: nothing has that name.
        ModelError: no lineage has that key, or several have.
    """
    if current.startswith(ARTIFACT):
        if not current.startswith(f"{ARTIFACT}{KIND}/"):
            raise ConfigError(f"current: {current} is no lineage; give artifact:{KIND}/KEY or a name.{_known(store)}")
        lineage = read(find_artifact(store, current, "current"))
        return lineage, f"Updated is {lineage.name}, {KIND}/{lineage.key}."
    named = [artifact for artifact in lineages(store) if artifact.spec["name"] == current]
    if not named:
        raise ConfigError(f"current: no run or update in {store.root} is called {current}.{_known(store)}")
    shown = linked_model(store, current)
    chosen = [one for one in named if _merged(store, one) == shown] or named
    lineage = read(chosen[-1])
    told = f"Updated is {current}, {KIND}/{lineage.key}"
    if len(named) == 1:
        return lineage, f"{told}."
    others = ", ".join(f"{KIND}/{one.key}" for one in reversed(named) if one.key != lineage.key)
    why = "the newest" if chosen is named else f"whose model {MODELS}/{current} shows,"
    return lineage, f"{told}, {why} of {len(named)} of that name; others: {others}. Name one by current=artifact:…"


def _merged(store: Store, lineage: Artifact) -> str | None:
    """Fingerprint of a lineage's model, if the store has it."""
    found = store.get("merge", lineage.inputs["merged"])
    return None if found is None else found.fingerprint


def lineages(store: Store) -> list[Artifact]:
    """All lineages, the oldest first; those made at one time by key."""
    found = [artifact for kind, key in store.finished(KIND) if (artifact := store.get(kind, key)) is not None]
    return sorted(found, key=lambda one: (store.fs.modified(f"{store.folder(KIND)}/{one.key}/{MANIFEST}"), one.key))


def _known(store: Store) -> str:
    """The names there are, the newest first, for errors."""
    names = list(dict.fromkeys(artifact.spec["name"] for artifact in reversed(lineages(store))))
    if not names:
        return (
            " It has no lineage at all: run jobs/boom.py there first. A run that an earlier version made leaves one "
            "when it is run again, which computes nothing anew."
        )
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" There are {', '.join(names[:SHOWN])}{more}."
