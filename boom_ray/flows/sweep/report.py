"""What a sweep found: the chosen point against equal weights, the best member and plain batch-level shuffling.

The search looked at the selection tasks only; here all of them are evaluated on the reported tasks, with the paired
comparison of the evaluation stage, so that a user sees whether anything beyond noise was found.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from boom_ray.config import MergeConfig, ObjectiveConfig, RunConfig, SweepConfig
from boom_ray.evaluation.compare import Comparison, compare, summary
from boom_ray.evaluation.results import task_scores
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.members import SHORT, Foundation, Planned
from boom_ray.flows.preparing import Prepared, artifact_ref, check_scores
from boom_ray.flows.sweep.scoring import TrialScorer
from boom_ray.flows.workspace import Workspace
from boom_ray.merging.run import merge
from boom_ray.store import Artifact
from boom_ray.sweeps.objectives import objectives
from boom_ray.sweeps.outcome import chosen
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.trials import Answer, Trial

CHOSEN, EQUAL = "chosen", "equal-weights"
Scores = Mapping[str, Mapping[str, float]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """What a sweep found.

    Attributes:
        trial: the chosen one.
        config: its configuration, complete.
        planned: its bags and members, and the baseline's.
        members: bag name to the member's artifact, the baseline among them.
        merged: the chosen model.
        ready: what it was merged from.
        best_member: name of the member that is best by the sweep's objectives, of all that its trials merged.
        compared: how many members that were.
        selection: model to task to score, on the whole selection tasks; of other trials' members the best only.
        types: selection task to mteb's type.
        evaluation: scores of base, chosen, equal weights, best member and baseline on the reported tasks.
        comparisons: the chosen model against each of the others.
    """

    trial: Trial
    config: RunConfig
    planned: Planned
    members: dict[str, Artifact]
    merged: Artifact
    ready: Prepared
    best_member: str
    compared: int
    selection: dict[str, dict[str, float]]
    types: dict[str, str]
    evaluation: Evaluation
    comparisons: tuple[Comparison, ...]


def find(
    space: Workspace, foundation: Foundation, config: SweepConfig, trials: Sequence[Trial], scorer: TrialScorer
) -> Findings:
    """Merge, evaluate and compare what the report is about.

    Raises:
        EvaluationError: no trial has finished, or a task could not be evaluated.
        TrainingError: the baseline could not be trained.
    """
    scorer.arena.release()  # the search is over, and everything below wants the room of its actors
    trial = chosen(trials, [objective.name for objective in config.sweep.objectives])
    own = trial_config(config, trial.point)
    ready = scorer.prepared(own)
    planned, trained = scorer.with_baseline(own)
    members = {name: trained[job.key] for name, job in planned.jobs.items()}
    merged = merge(space.store, ready.inputs, ready.config, space)
    equal = merge(space.store, ready.inputs, equal_weights(ready.config), space)
    every = scorer.members_of(trials)
    others = name_others({name: job.key for name, job in planned.jobs.items()}, every)
    refs = {name: artifact_ref(space, name, one, own.model) for name, one in (members | others).items()}
    merges = [artifact_ref(space, CHOSEN, merged, own.model)]
    if equal.fingerprint != merged.fingerprint:
        merges.append(artifact_ref(space, EQUAL, equal, own.model))
    selection, types = _selection(space, foundation, [*merges, *refs.values()], others)
    rivals = [name for name, job in planned.jobs.items() if job.key in every] + [
        one for one in others if one in selection
    ]
    best = best_member({name: selection[name] for name in rivals}, types, config.sweep.objectives)
    selection = {name: scores for name, scores in selection.items() if name not in others or name == best}
    wanted = dict.fromkeys([best, *([planned.everything] if planned.everything else [])])
    models = [artifact_ref(space, "base", foundation.base, own.model), *merges, *(refs[name] for name in wanted)]
    evaluation = evaluate(space.store, models, foundation.evaluation, space)
    check_scores(evaluation)
    return Findings(
        *(trial, own, planned, members, merged, ready, best, len(rivals), selection, types, evaluation),
        tuple(_compare(space, config, evaluation)),
    )


def name_others(own: Mapping[str, str], every: Mapping[str, tuple[str, Artifact]]) -> dict[str, Artifact]:
    """Members of other trials by a name of their own: that of their bag, with digits of the key where it is taken.

    Args:
        own: bag name to the key of the chosen trial's member, the baseline among them.
        every: key of a member to its bag's name and its artifact.
    """
    taken, found = {"base", CHOSEN, EQUAL, *own}, dict[str, Artifact]()
    for key, (bag, artifact) in every.items():
        if key not in own.values():
            name = bag if bag not in taken else f"{bag}~{key[:SHORT]}"
            taken.add(name)
            found[name] = artifact
    return found


def best_member(selection: Scores, types: Mapping[str, str], wanted: Sequence[ObjectiveConfig]) -> str:
    """The member that would be chosen if each were a trial of the sweep.

    Args:
        selection: member to task to score.
        types: task to its type.
        wanted: the sweep's objectives.
    """
    names = list(selection)
    alone = [
        Trial(place, {}, (Answer(selection[name], objectives(selection[name], types, wanted)),), "finished")
        for place, name in enumerate(names)
    ]
    return names[chosen(alone, [objective.name for objective in wanted]).number]


def equal_weights(config: MergeConfig) -> MergeConfig:
    """The same recipe without weights: equal ones, also for groups of layers."""
    rules = [rule.model_copy(update={"weights": None}) for rule in config.rules]
    return config.model_copy(update={"weights": "equal", "rules": tuple(rule for rule in rules if rule.parameters)})


def report_text(found: Findings) -> str:
    """The findings in words: the point, where the search went by, and each comparison."""
    lines = [f"Chosen: trial {found.trial.number}, {_point(found.trial)}."]
    told = ", ".join(f"{name} {100 * mean(scores.values()):.2f}" for name, scores in found.selection.items())
    lines.append(f"On the selection tasks (mean, whole tasks): {told}.")
    lines.append(f"The best single member, by what was searched for: {found.best_member}, of {found.compared}.")
    if EQUAL not in found.selection:
        lines.append("The chosen weights are equal weights: there is nothing to compare with them.")
    for one in found.comparisons:
        lines.append(f"\n{one.names[1]} against {one.names[0]}:\n{summary(one)}")
    return "\n".join(lines)


def _point(trial: Trial) -> str:
    return ", ".join(f"{key} {value}" for key, value in trial.point.items())


def _compare(space: Workspace, config: SweepConfig, evaluation: Evaluation) -> list[Comparison]:
    scores = task_scores(space.store, evaluation.scores)
    others = [name for name in scores if name != CHOSEN]
    seed = config.evaluation.seed
    return [compare(scores[name], scores[CHOSEN], (name, CHOSEN), seed) for name in others]


def _selection(
    space: Workspace, foundation: Foundation, models: Sequence[ModelRef], spare: Mapping[str, Artifact]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Model to task to score, on the whole selection tasks, and task to mteb's type.

    Of the spare ones, those that cannot be evaluated are left out: the report can do without them.
    """
    tasks = foundation.evaluation.model_copy(
        update={"in_domain": foundation.evaluation.selection, "out_of_domain": (), "selection": ()}
    )
    evaluation = evaluate(space.store, models, tasks, space)
    for failure in evaluation.failures:
        if failure.model in spare:
            log.warning("Member %s is not compared: on %s, %s", failure.model, failure.task, failure.error)
    lost = {failure.model for failure in evaluation.failures if failure.model in spare}
    check_scores(replace(evaluation, failures=tuple(one for one in evaluation.failures if one.model not in lost)))
    found: dict[str, dict[str, float]] = {model.name: {} for model in models if model.name not in lost}
    types: dict[str, str] = {}
    for score in evaluation.scores:
        types[score.task] = score.type
        if score.model in found:
            found[score.model][score.task] = score.value
    return found, types
