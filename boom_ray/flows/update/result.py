"""All that an update made, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from boom_ray.config.update import FULL
from boom_ray.evaluation.scores import Evaluation
from boom_ray.flows.lineage import Lineage
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.update.plan import UpdatePlan
from boom_ray.flows.update.report import Cost
from boom_ray.flows.update.stages import UPDATE, Bags, Material, seen_by_full_retraining
from boom_ray.store import Artifact


@dataclass(frozen=True)
class UpdateResult:
    """What an update leaves.

    Attributes:
        plan: what was wanted.
        material: base, corpora, and the model before.
        bags: core, new data, and what members were trained on.
        members: ``update``, and ``full-retraining`` if it was wanted.
        ready: the models that were merged, and the recipe.
        merged: the model after.
        evaluation: scores of the model before, the members, and the model after.
        lineage: what the next update begins with.
    """

    plan: UpdatePlan
    material: Material
    bags: Bags
    members: dict[str, Artifact]
    ready: Prepared
    merged: Artifact
    evaluation: Evaluation
    lineage: Lineage

    @property
    def everything(self) -> int:
        """Examples of one pass over all data, old and new: the unit of costs."""
        return sum(count for share in self.bags.whole.values() for count in share.figures["examples"].values())

    def cost_of_update(self) -> Cost:
        """Training of the update member."""
        return self._cost("update member", *_measured(self.members[UPDATE]))

    def cost_of_full_retraining(self) -> Cost:
        """Training of one member on everything, as it was or as it would be."""
        if FULL in self.members:
            return self._cost("full retraining", *_measured(self.members[FULL]))
        return self._cost("full retraining", seen_by_full_retraining(self.plan, [*self.bags.whole.values()]), None)

    def cost_of_before(self) -> Cost:
        """Training of all members that are in the model before."""
        members = self.plan.before.members
        seconds = sum(member.seconds for member in members)
        return self._cost("the model before", sum(member.examples for member in members), seconds)

    def _cost(self, what: str, examples: int, seconds: float | None) -> Cost:
        return Cost(what, examples, examples / max(1, self.everything), seconds)


def _measured(member: Artifact) -> tuple[int, float]:
    return int(member.figures["examples"]), float(member.figures["seconds"])
