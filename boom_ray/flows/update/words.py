"""What an update says on the screen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from boom_ray.evaluation.report import Row
from boom_ray.flows.summary import say_table
from boom_ray.flows.update.plan import UpdatePlan
from boom_ray.flows.update.report import cost_sentence, group_rows, task_rows
from boom_ray.flows.update.result import UpdateResult
from boom_ray.flows.update.stages import Bags
from boom_ray.flows.workspace import Workspace


def said_of_bags(plan: UpdatePlan, bags: Bags) -> str:
    """What is replayed, what is new, and what is not new although it was given."""
    core = sum(sum(one.figures["examples"].values()) for one in bags.cores.values())
    new = sum(bags.new.figures["examples"].values())
    repeated = {name: count for name, count in bags.new.figures["repeated"].items() if count}
    lines = [f"The update member is trained on {core:,} examples of the old core and {new:,} new ones."]
    if repeated:
        told = ", ".join(f"{name} {count:,}" for name, count in repeated.items())
        lines.append(f"Left out, because {plan.before.name} was trained on them already: {told}.")
    return "\n".join(lines)


def last_words(
    space: Workspace,
    result: UpdateResult,
    compared: Mapping[str, str],
    cost: Sequence[Row],
    folder: Path,
    started: float,
) -> None:
    """Print scores, comparisons, costs, and where things are.

    Args:
        space: where to print, and what was used.
        result: the update.
        compared: what is compared to what the tests say of it.
        cost: rows of costs.
        folder: the model after.
        started: when the job began, by ``time.monotonic``; seconds.
    """
    values: dict[str, dict[str, float]] = {}
    for score in result.evaluation.scores:
        values.setdefault(score.model, {})[score.task] = score.value
    groups, say = result.plan.groups, space.progress.say
    if values:
        say_table(space, group_rows(values, groups), "Means over tasks (100 = perfect)")
        say_table(space, task_rows(values, groups), "Scores by task")
    else:
        say("No scores: there are no evaluation tasks.")
    for name, text in compared.items():
        say(f"\n{name}:\n{text}")
    say_table(space, cost, "Costs")
    before, lineage = result.plan.before, result.lineage
    lines = [
        cost_sentence(result.cost_of_update(), result.cost_of_full_retraining()),
        f"The model after: {folder}",
        "    from sentence_transformers import SentenceTransformer",
        f'    model = SentenceTransformer("{folder}")',
        f"The next update begins here with current={lineage.name} (lineage/{lineage.key}).",
        f"The model before is as it was: {before.name} (lineage/{before.key}).",
        f"Every step in MLflow: {space.tracker.how_to_open()}",
        f"All artifacts: {space.store.root}; the same command again computes only what is missing.",
        f"Took {time.monotonic() - started:.0f} s.",
    ]
    say("\n".join(lines))
