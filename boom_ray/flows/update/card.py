"""What the model card of an updated model says."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.evaluation.report import Row
from boom_ray.flows.merge.record import lineage_of_data, what_was_found
from boom_ray.flows.summary import means
from boom_ray.flows.update.result import UpdateResult
from boom_ray.flows.update.stages import UPDATE
from boom_ray.merging.product.card import CardFacts, CardMember


def update_card(result: UpdateResult, rows: Sequence[Row]) -> CardFacts:
    """The card's facts.

    Args:
        result: the update.
        rows: scores by model, see `boom_ray.evaluation.report.table`.
    """
    plan, merged = result.plan, result.merged
    names = [ref.name for ref in result.ready.inputs.members]
    weights = dict(zip(names, merged.spec["weights"], strict=True))
    cost = result.cost_of_update()
    lineage = {
        f"updated ({plan.before.name})": f"lineage/{plan.before.key}",
        "lineage": f"lineage/{result.lineage.key}",
        "chain": " → ".join(layer.name for layer in result.lineage.layers),
        "merged": "all members, from the originals" if plan.config.from_members else "the model before and the update",
        "cost of the update": f"{cost.examples:,} examples, {cost.runs:.3f} passes over all data",
        "corpus": result.material.foundation.corpus.key,
        "merge": merged.key,
    }
    lineage |= {f"member {member.name}": member.key for member in result.lineage.members}
    return CardFacts(
        name=plan.config.name,
        base=plan.run.model.base,
        recipe=merged.spec,
        members=[_member(result, name, weights[name]) for name in names],
        datasets=result.lineage.examples,
        prompts=result.material.prompts,
        scores=[means(row) for row in rows],
        lineage=lineage | lineage_of_data(result.ready),
        found=what_was_found(result.ready),
        looked_at=result.ready.looked_at,
    )


def _member(result: UpdateResult, name: str, weight: float) -> CardMember:
    """A row of the members' table: the update member, a member before, or the whole model before."""
    plan = result.plan
    if name == plan.config.name:
        update = result.members[UPDATE]
        cores = ", ".join(f"{core.spec['rule']['ratio'] * 100:g} % of {one}" for one, core in result.bags.cores.items())
        examples = sum(result.bags.planned.bags[UPDATE].figures["examples"].values())
        return CardMember(name, f"{cores}, and all that is new", examples, update.figures["steps"], weight)
    batch = plan.before.config.training.batch_size
    if plan.config.from_members:
        member = next(one for one in plan.before.members if one.name == name)
        return CardMember(name, f"bag/{member.bag}", member.examples, member.examples // batch, weight)
    seen = sum(member.examples for member in plan.before.members)
    parts = " + ".join(member.name for member in plan.before.members)
    return CardMember(name, f"the model before, made of {parts}", seen, seen // batch, weight)
