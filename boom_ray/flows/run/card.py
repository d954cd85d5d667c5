"""What the model card of a trained and merged model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boom_ray.config import RunConfig
from boom_ray.evaluation.report import Row
from boom_ray.flows.inputs import prompts
from boom_ray.flows.merge.record import lineage_of_data, what_was_found
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.summary import means
from boom_ray.merging.product.card import CardFacts, CardMember
from boom_ray.store import Artifact


def run_card(
    config: RunConfig,
    corpus: Artifact,
    bags: Mapping[str, Artifact],
    members: Mapping[str, Artifact],
    merged: Artifact,
    ready: Prepared | None,
    rows: Sequence[Row],
    baseline: str | None,
) -> CardFacts:
    """The card's facts.

    Args:
        config: the run.
        corpus: its corpus.
        bags: bag name to artifact.
        members: bag name to the member trained on it; those that are not merged are left out.
        merged: the merge.
        ready: its models and recipe.
        rows: scores by model.
        baseline: name of the member trained on all data.
    """
    names = [bag.name for bag in config.bags.resolved()]  # a stored merge may know its members by other names
    weights = dict(zip(names, merged.spec["weights"], strict=True))
    described = [
        CardMember(name, bag_words(bags[name]), examples, member.figures["steps"], weights[name])
        for name, member in members.items()
        if name in weights
        for examples in [sum(bags[name].figures["examples"].values())]
    ]
    lineage = {"corpus": corpus.key, "merge": merged.key}
    lineage |= {f"member {name}": member.key for name, member in members.items()}
    return CardFacts(
        name=config.name,
        base=config.model.base,
        recipe=merged.spec,
        members=described,
        datasets={name: int(facts["rows"]) for name, facts in corpus.figures["datasets"].items()},
        prompts=prompts(config),
        scores=[means(row, baseline) for row in rows],
        lineage=lineage | (lineage_of_data(ready) if ready else {}),
        found=what_was_found(ready) if ready else {},
        looked_at=ready.looked_at if ready else {},
    )


def bag_words(bag: Artifact) -> str:
    """A bag's rule in words."""
    rule: dict[str, Any] = bag.spec["rule"]
    where = ", ".join(rule.get("datasets", ())) or "every dataset"
    share = f"{rule['ratio'] * 100:g} % of {where}"
    if rule["complement"]:
        return f"what {share} left over"
    return share if rule["replacement"] == "none" else f"{share}, {rule['replacement']} counts"
