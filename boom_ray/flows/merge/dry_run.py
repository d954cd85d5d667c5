"""What a merge would do, told without doing it: from the headers of files, and from what earlier merges found."""

from __future__ import annotations

from collections.abc import Iterator

from boom_ray.config import MergeConfig
from boom_ray.flows.preparing import SEARCHED
from boom_ray.merging.geometry.coefficients import coefficients, has_coefficients
from boom_ray.merging.geometry.statistics import find_geometry
from boom_ray.merging.job import MergeJob, coefficient_ranges
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.run import MergePlan, is_spread
from boom_ray.merging.stream import Opened
from boom_ray.merging.tensors.whole import whole_space
from boom_ray.progress import size_text

GATHERED = {
    "fisher": "the members' Fisher information",
    "activations": "products of the members' activations",
    "probe": "weights learned by gradient descent",
    "scores": "scores of the members and of up to M - 1 soups on evaluation.selection",
}
"""What is gathered before the merge, by `Method.needs`."""


def plan_lines(job: MergeJob, opened: Opened, plan: MergePlan, gathered: frozenset[str], all_known: bool) -> list[str]:
    """The plan in words.

    Args:
        job: the merge.
        opened: its models.
        plan: what will be done.
        gathered: what is gathered or searched before it, see `boom_ray.flows.preparing.gathered`.
        all_known: whether the fingerprints of all models are known, without which nothing is found in the store.
    """
    names, recipe = [member.name for member in job.inputs.members], plan.recipe
    weights = ", ".join(f"{name} {share:.4g}" for name, share in zip(names, recipe.weights, strict=True))
    parameters = ", ".join(f"{name} {value}" for name, value in recipe.parameters.items())
    return [
        f"method       {recipe.method}: {recipe.entry.formula}",
        f"weights      {'found before the merge' if gathered & SEARCHED else weights}",
        f"parameters   {parameters or 'none'}",
        f"about        {'differences from the base' if recipe.uses_base else 'whole weights'}",
        *(f"before it    {GATHERED[need]}" for need in sorted(gathered)),
        f"tensors      {plan.tensors:,}, {plan.parameters:,} parameters",
        *_rules(recipe, opened),
        f"read         {size_text(plan.bytes_in)} of {len(opened.models)} models",
        f"written      {size_text(plan.bytes_out)} in {len(plan.files)} {'file' if len(plan.files) == 1 else 'files'}",
        f"memory       at most {size_text(plan.memory)} beside the process itself",
        f"tasks        {len(plan.files) if is_spread(plan, job.config) else 1}",
        *_coefficient_lines(job, opened, recipe, gathered, all_known),
        f"result       {_result(job, plan, all_known and not gathered)}",
    ]


def _rules(recipe: Recipe, opened: Opened) -> Iterator[str]:
    keys = [info.key for info in opened.floating()]
    for number, rule in enumerate(recipe.rules):
        where = ", ".join(rule.tensors) + (f" in layers {rule.layers[0]}-{rule.layers[1]}" if rule.layers else "")
        what = [f"{name} {value}" for name, value in rule.parameters.items()]
        if rule.weights is not None:
            what.append(f"weights {', '.join(f'{weight:.4g}' for weight in rule.weights)}")
        matched = sum(rule.matches(key) for key in keys)
        yield f"rule {number}       {where}: {matched} of {len(keys)} tensors, {', '.join(what)}"


def _coefficient_lines(
    job: MergeJob, opened: Opened, recipe: Recipe, gathered: frozenset[str], all_known: bool
) -> Iterator[str]:
    """Range of every member's coefficients, as far as it is known without reading the members."""
    names = [member.name for member in job.inputs.members]
    if not has_coefficients(recipe) or gathered & SEARCHED:
        found = "follow from the weights" if recipe.entry.rule else "none: elements of a tensor are merged differently"
        yield f"coefficients {found}"
        return
    spaces = {}
    if recipe.needs & {"gram", "model_gram"}:
        known = find_geometry(job) if all_known else None
        if known is None or not known.grams:
            yield (
                "coefficients follow from inner products of the members, which are not in the store yet: they are "
                "computed on the way, and kept"
            )
            return
        spaces = {key: known.space(key, recipe.uses_base) for key in sorted(known.grams)}
        if "model_gram" in recipe.needs:
            spaces = dict.fromkeys(spaces, whole_space(one for one in spaces.values() if one))
    notes = {
        info.key: {"coefficients": coefficients(recipe, info.key, spaces.get(info.key)).tolist()}
        for info in opened.floating()
    }
    for name, ends in coefficient_ranges(notes, names).items():
        yield f"coefficients {name}: {ends['least']:.6g} to {ends['most']:.6g}"


def _result(job: MergeJob, plan: MergePlan, known: bool) -> str:
    if known and job.store.get("merge", plan.key) is not None:
        return f"exists already: {job.store.location('merge', plan.key)}"
    return "does not exist yet" if known else "not looked up: that takes the hashes of all models, or data"


def geometry_line(config: MergeConfig, nbytes: int, known: bool) -> str:
    """What the geometry report costs."""
    if not config.geometry:
        return "geometry     off"
    return f"geometry     {'in the store already' if known else f'one pass over {size_text(nbytes)}'}"
