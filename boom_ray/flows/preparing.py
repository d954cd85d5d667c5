"""What methods need beside the members: statistics of data, learned weights, scores of soups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from boom_ray.config import EvaluationConfig, MergeConfig, ModelConfig, RunConfig
from boom_ray.errors import ConfigError, EvaluationError
from boom_ray.evaluation.report import means
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.events import Event
from boom_ray.flows.ingredients import artifact_fingerprint
from boom_ray.flows.workspace import Workspace
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.methods.averages import greedy_soup
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.probe.gather import WEIGHTS, Resources, gather_activations, gather_fisher
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.probe.weights import learn_weights
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.run import MODEL, merge
from boom_ray.model.folder import is_adapter, prompts_digest
from boom_ray.store import Artifact

FROM_DATA = frozenset({"fisher", "activations", "probe"})
SEARCHED = frozenset({"probe", "scores"})
GATHERED = FROM_DATA | SEARCHED


@dataclass(frozen=True)
class Ground:
    """What a merge may look at beside the members.

    Attributes:
        model: pooling and templates.
        evaluation: tasks, with every name made a path.
        loss: the loss that members were trained with.
        corpus: training data; None when no method needs it.
    """

    model: ModelConfig
    evaluation: EvaluationConfig
    loss: LossSettings
    corpus: Artifact | None = None


@dataclass(frozen=True)
class Prepared:
    """A merge of which everything is known.

    Attributes:
        inputs: the models and what was gathered about them.
        config: the recipe, with the weights that were found.
        facts: what was found, for MLflow and the card; JSON values.
        looked_at: the training data that the method looked at before the merge, for the same; see `_looked_at`.
        seconds: computing time of gathering and searching, also where it was done earlier.
    """

    inputs: MergeInputs
    config: MergeConfig
    facts: dict[str, Any]
    looked_at: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def gathered(config: MergeConfig) -> frozenset[str]:
    """What the method needs that no member's file holds, see `Method.needs`; weights given as numbers stay."""
    needs = METHODS[config.method].needs_for(config.complete_parameters({})) & GATHERED
    return needs - SEARCHED if isinstance(config.weights, tuple) else needs


def check_ground(config: MergeConfig, has_base: bool, has_corpus: bool, evaluation: EvaluationConfig) -> None:
    """Check that the configuration has what the method looks at.

    Raises:
        ConfigError: no base, no corpus, or no task to choose by.
    """
    needs, about = gathered(config), METHODS[config.method].base
    if not has_base and (about == "required" or (about == "optional" and config.base == "base")):
        raise ConfigError(
            f"merge.method={config.method} works on differences from the model that the members were trained from: "
            f"give base{', or merge.base=none' if about == 'optional' else ''}."
        )
    if needs & FROM_DATA and not has_corpus:
        raise ConfigError(
            f"merge.method={config.method} looks at training data: give corpus.datasets, e.g. those that the members "
            f"were trained on{', or merge.weights as numbers' if needs & SEARCHED else ''}."
        )
    if "scores" in needs and not evaluation.selection:
        raise ConfigError(
            f"merge.method={config.method} compares scores: give evaluation.selection, tasks that are neither trained "
            f"on nor reported, or merge.weights as numbers."
        )


def check_rules(config: RunConfig, base: Artifact) -> None:
    """Check a run's rules before it is trained: members are saved as the base is, with tensors of the same names.

    Raises:
        MergeError: a rule about nothing, or rules that do not go together.
    """
    with open_checkpoint(base.local() / MODEL, "base") as opened:
        keys = [key for key, info in opened.tensors.items() if info.dtype.is_floating_point]
    resolve(config.merge, as_planned(config)).check(keys)


def as_planned(config: RunConfig) -> list[MemberRef]:
    """The members as far as they are known before training: their names, and their sizes in proportion."""
    shares = config.bags.shares()
    return [MemberRef(name, "", "", round(share * 1_000_000)) for name, share in shares.items()]


def prepare(space: Workspace, inputs: MergeInputs, config: MergeConfig, ground: Ground) -> Prepared:
    """Gather and search what the method needs; everything is kept in the store.

    Args:
        space: store, and who listens to progress.
        inputs: the models.
        config: the recipe.
        ground: what may be looked at.

    Raises:
        BoomError: see the stages that gather, and `boom_ray.merging.run.merge`.
    """
    ready = Prepared(inputs, config, {})
    for need in sorted(gathered(config)):
        ready = STEPS[need](space, ready, ground)
    return ready


def _fisher(space: Workspace, ready: Prepared, ground: Ground) -> Prepared:
    made = _gather(space, ready, ground, gather_fisher)
    inputs = replace(ready.inputs, fisher=_refs(ready, made))
    return replace(ready, inputs=inputs, looked_at=_looked_at(ground, made), seconds=_seconds(ready, made.values()))


def _activations(space: Workspace, ready: Prepared, ground: Ground) -> Prepared:
    made = _gather(space, ready, ground, gather_activations)
    inputs = replace(ready.inputs, activations=_refs(ready, made))
    return replace(ready, inputs=inputs, looked_at=_looked_at(ground, made), seconds=_seconds(ready, made.values()))


def _seconds(ready: Prepared, made: Iterable[Artifact]) -> float:
    return ready.seconds + sum(float(one.figures.get("seconds", 0.0)) for one in made)


def _gather(space: Workspace, ready: Prepared, ground: Ground, stage: Callable[..., Artifact]) -> dict[str, Artifact]:
    """What a stage gathers about every member, in their order, by a name for people."""
    probe = ready.config.probe
    resources = Resources(probe.gpus_per_actor, probe.actors)
    made = {}
    for member in ready.inputs.members:
        base = ready.inputs.base if is_adapter(space.store.resolve(member.path)) else None
        found = stage(space.store, member, ground.corpus, probe, ground.model, ground.loss, space, resources, base)
        made[f"{found.kind} of {member.name}"] = found
    return made


def _refs(ready: Prepared, made: Mapping[str, Artifact]) -> list[MemberRef]:
    return [
        MemberRef(member.name, found.place(WEIGHTS), found.key, member.examples)
        for member, found in zip(ready.inputs.members, made.values(), strict=True)
    ]


def _looked_at(ground: Ground, made: Mapping[str, Artifact]) -> dict[str, Any]:
    """Which data was looked at, as JSON values.

    Returns:
        ``corpus`` (its key, fingerprint and examples by dataset), ``examples`` of the sample by dataset, ``settings``
        that decide what was gathered, and ``artifacts``, name to key.
    """
    corpus = ground.corpus
    assert corpus is not None  # see `check_ground`
    one = next(iter(made.values()))  # every member was looked at with the same sample
    rows = {name: int(facts["rows"]) for name, facts in corpus.figures["datasets"].items()}
    return {
        "corpus": {"key": corpus.key, "fingerprint": corpus.fingerprint, "examples": rows},
        "examples": one.figures["examples"],
        "settings": {name: one.spec[name] for name in ("sample", "loss", "learn") if name in one.spec},
        "artifacts": {name: found.key for name, found in made.items()},
    }


def _learn(space: Workspace, ready: Prepared, ground: Ground) -> Prepared:
    inputs, config = ready.inputs, ready.config
    assert inputs.base is not None and ground.corpus is not None  # see `check_ground`
    made = learn_weights(
        *(space.store, inputs.members, inputs.base, ground.corpus, config.probe, ground.model, ground.loss, space),
        cpus=config.cpus or 1,
        gpus=config.probe.gpus_per_actor,
    )
    found = made.figures
    parameters = {**config.parameters, "scale": found["scale"]}
    fixed = config.model_copy(update={"weights": tuple(found["weights"]), "parameters": parameters})
    looked_at = _looked_at(ground, {"learned weights": made})
    return replace(ready, config=fixed, facts={"learned": found}, looked_at=looked_at, seconds=_seconds(ready, [made]))


def _soup(space: Workspace, ready: Prepared, ground: Ground) -> Prepared:
    inputs, config = ready.inputs, ready.config
    chosen_by = ground.evaluation.selection
    tasks = ground.evaluation.model_copy(update={"in_domain": chosen_by, "out_of_domain": (), "selection": ()})
    plain = config.model_copy(update={"method": "linear", "weights": "equal", "parameters": {}, "rules": ()})
    names = [member.name for member in inputs.members]
    found: dict[str, float] = {}
    seconds: list[float] = []

    def scores(models: Sequence[ModelRef]) -> list[float]:
        evaluation = evaluate(space.store, models, tasks, space)
        check_scores(evaluation)
        seconds.extend(score.seconds for score in evaluation.scores)
        averages = means(evaluation.scores)
        values = [float(averages[model.name]["in_domain"] or 0.0) for model in models]
        found.update(zip((model.name for model in models), values, strict=True))
        return values

    def soup(trial: tuple[int, ...]) -> float:
        name = "soup " + "+".join(names[place] for place in trial)
        some = replace(inputs, members=[inputs.members[place] for place in trial])
        made = merge(space.store, some, plain, _renamed(space, name))
        seconds.append(float(made.figures.get("seconds", 0.0)))
        return scores([model_ref(space, merged_ref(name, made), ground.model)])[0]

    alone = scores([complete_ref(space, member, inputs, ground.model) for member in inputs.members])
    weights = greedy_soup(alone, soup)
    facts = {"soups": found, "selection": [task.name for task in chosen_by]}
    fixed = config.model_copy(update={"weights": weights})
    return replace(ready, config=fixed, facts=facts, seconds=ready.seconds + sum(seconds))


STEPS: dict[str, Callable[[Workspace, Prepared, Ground], Prepared]] = {
    "fisher": _fisher,
    "activations": _activations,
    "probe": _learn,
    "scores": _soup,
}


def check_scores(evaluation: Evaluation) -> None:
    """Raise what could not be evaluated.

    Raises:
        EvaluationError: a task failed.
    """
    if evaluation.failures:
        lines = [f"  {one.model} on {one.task}: {one.error}" for one in evaluation.failures]
        raise EvaluationError("\n".join(["Some tasks could not be evaluated; all else is done:", *lines]))


def merged_ref(name: str, artifact: Artifact) -> MemberRef:
    """A merged model as one that can be evaluated or merged again."""
    return MemberRef(name, artifact.place(MODEL), artifact.fingerprint, 0)


def model_ref(space: Workspace, ref: MemberRef, model: ModelConfig) -> ModelRef:
    """A complete folder, to be evaluated; its weights are not hashed again."""
    digest = prompts_digest(space.store.resolve(ref.path))
    return ModelRef(ref.name, ref.path, ref.fingerprint, digest, model.query_template, model.passage_template)


def artifact_ref(space: Workspace, name: str, artifact: Artifact, model: ModelConfig) -> ModelRef:
    """The model in a base, member or merge of the store, to be evaluated; its weights are not hashed again."""
    return model_ref(space, MemberRef(name, artifact.place(MODEL), artifact_fingerprint(artifact), 0), model)


def complete_ref(space: Workspace, ref: MemberRef, inputs: MergeInputs, model: ModelConfig) -> ModelRef:
    """A member or the base, to be evaluated; of adapters and plain transformers folders a complete copy is made.

    The copy is a merge of one model, so it has exactly the pooling, prompts and tokenizer of the merged model.
    """
    folder = space.store.resolve(ref.path)
    if (folder / "modules.json").exists() and not is_adapter(folder):
        return model_ref(space, ref, model)
    one = replace(inputs, members=[ref], fisher=(), activations=())
    made = merge(space.store, one, MergeConfig(method="linear"), _renamed(space, f"{ref.name}, complete"))
    return model_ref(space, merged_ref(ref.name, made), model)


def _renamed(space: Workspace, unit: str) -> Callable[[Event], None]:
    return lambda event: space(replace(event, unit=unit))
