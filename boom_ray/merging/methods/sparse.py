"""Methods that thin out every member's difference from the base before they combine them.

All are made of two parts. The first keeps some elements of every difference: the largest (TIES), random ones (DARE),
random ones with a preference for the large (DELLA), or those between two thresholds (Breadcrumbs). The second combines
what is left: a weighted sum (``_linear``, breadcrumbs), or a weighted average of those that agree with an elected sign
(``_ties``). Masks of random methods follow from seed, tensor name, member label and element index, so that neither the
order of tensors nor the number of threads changes the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from boom_ray.merging.methods.method import Combine, Method, Parameters, Prepare, add_up
from boom_ray.merging.tensors.magnitudes import Cut, cuts, keep_count, kept
from boom_ray.merging.tensors.masks import uniform
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import Strip, Vectors

Thin = Callable[[Strip], torch.Tensor]
"""Strip of n elements -> (M, n) thinned differences, made in ``strip.rows``."""
Thinning = Callable[[Vectors, Parameters], Thin]
"""Looks at the vectors of a tensor and says how its strips are thinned."""


def elect(rows: torch.Tensor, weights: Sequence[float], normalize: bool, weighted: bool = True) -> torch.Tensor:
    """Average of the members that agree with the elected sign, element by element.

    An element's sign is that of the weighted sum of all members; a member agrees if its own value has that sign, so
    zeros and members of weight 0 never do. Where the sum is 0, but for rounding, nobody is elected and the result is 0:
    differences of 16-bit weights often cancel, and the order of the members must not decide then; see `majority`.

    Args:
        rows: (M, n) thinned differences; overwritten.
        weights: M, not negative, sum 1.
        normalize: divide by the weights of those that agree; otherwise their weighted sum is the result.
        weighted: whether weights count in the election, too, or only in the average.

    Returns:
        (n,) merged difference.

    Source: Yadav et al., arXiv 2306.01708, sections 4.2 and 4.3 (elect sign, disjoint merge), which has no weights;
    mergekit brought them in, and weights the election. mergekit takes a sum of 0 for positive.
    """
    if weighted:
        _weigh(rows, weights)
    sign = majority(rows)
    if not weighted:
        _weigh(rows, weights)
    agreeing = rows.mul_(sign).clamp_(min=0)
    merged = total(agreeing)
    if normalize:
        votes = total(_weigh(agreeing.sign_(), weights))
        merged.div_(votes.clamp_(min=min(weight for weight in weights if weight > 0) / 2))  # 0 where nobody agrees
    return merged.mul_(sign)


def majority(rows: torch.Tensor) -> torch.Tensor:
    """(n,) sign of the sum of (M, n) rows; 0 where it is smaller than what rounding can make of a sum of 0.

    A row that was subtracted, rescaled and weighed is off by up to 1.5 eps of its magnitude, with eps the spacing of
    the rows' type at 1, so a sum is taken for 0 up to (M + 1) eps times the sum of magnitudes. The few sums that are
    near this bound or below are added up again in float64, where the order of rows makes no difference to float32 rows.
    """
    sums, magnitudes = total(rows), rows[0].abs()
    for row in rows[1:]:
        magnitudes.add_(row.abs())
    bound = (len(rows) + 1) * torch.finfo(rows.dtype).eps
    doubtful = torch.nonzero(sums.abs() < magnitudes.mul_(2 * bound))[:, 0]
    sums.sign_()
    if len(doubtful):
        few = rows[:, doubtful].double()
        precise = total(few)
        precise[precise.abs() <= total(few.abs_()).mul_(bound)] = 0
        sums[doubtful] = precise.sign_().to(rows.dtype)
    return sums


def _weigh(rows: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    for row, weight in zip(rows, weights, strict=True):
        row.mul_(weight)
    return rows


def total(rows: torch.Tensor) -> torch.Tensor:
    """(n,) sum of (M, n) rows added one after another: the same rounding however the strip was cut."""
    result = rows[0].clone()
    for row in rows[1:]:
        result.add_(row)
    return result


def _summed(thinning: Thinning) -> Prepare:
    """Thin out, then Σ w_i d_i times ``scale``."""

    def prepare(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
        thin = thinning(vectors, parameters)
        coefficients = (weights * float(parameters["scale"])).tolist()
        return lambda strip: add_up(thin(strip), coefficients)

    return prepare


def _elected(thinning: Thinning) -> Prepare:
    """Thin out, elect signs, average what agrees, times ``scale``."""

    def prepare(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
        thin = thinning(vectors, parameters)
        shares, normalize, scale = weights.tolist(), bool(parameters["normalize"]), float(parameters["scale"])
        return lambda strip: elect(thin(strip), shares, normalize).mul_(scale)

    return prepare


def all_of(strip: Strip) -> torch.Tensor:
    """Density 1: nothing is dropped, and nothing had to be read to know that."""
    return strip.rows


def largest(vectors: Vectors, parameters: Parameters) -> Thin:
    """Keep the ``density`` share of largest magnitude, per tensor or, with ``scope=model``, of the whole model.

    Of elements exactly as large as the last one kept, a random share is kept; see
    `boom_ray.merging.tensors.magnitudes`.

    Source: Yadav et al., arXiv 2306.01708, section 4.1. The paper trims the whole model; mergekit trims every tensor,
    and among equals keeps those that its sort happens to leave in front.
    """
    density = float(parameters["density"])
    if density >= 1:
        return all_of
    if parameters.get("scope") == "model":
        found = vectors.whole.cuts
        assert found is not None, "the caller looks at `needs` and fills in the cuts"
        chosen: Sequence[Cut] = found
    else:
        chosen = cuts(vectors, [keep_count(density, vectors.numel)] * vectors.members)
    vectors.note("thresholds", [cut.threshold for cut in chosen])

    def thin(strip: Strip) -> torch.Tensor:
        return strip.rows.mul_(_kept(strip, chosen, vectors))

    return thin


def tails(vectors: Vectors, parameters: Parameters) -> Thin:
    """Drop the ``gamma`` share of largest magnitude, then the smallest until the ``density`` share is left.

    When ``density + gamma`` exceeds 1, fewer of the largest are dropped. At least one element is kept, where numbers of
    elements are exact: see `boom_ray.merging.tensors.magnitudes`.

    Source: Davari and Belilovsky, "Model Breadcrumbs", ECCV 2024, arXiv 2312.06795, section 3 (masks per layer); the
    parameters are mergekit's.
    """
    density = float(parameters["density"])
    if density >= 1:
        return all_of
    numel, members = vectors.numel, vectors.members
    middle = keep_count(density, numel)
    top = min(math.floor(float(parameters["gamma"]) * numel + 1e-6), numel - middle)
    found = cuts(vectors, [middle + top] * members + [top] * members, [*range(members), *range(members)])
    lower, upper = found[:members], found[members:]
    vectors.note("thresholds", [cut.threshold for cut in lower])

    def thin(strip: Strip) -> torch.Tensor:
        mask = _kept(strip, lower, vectors)
        if top:
            mask.sub_(_kept(strip, upper, vectors))
        return strip.rows.mul_(mask)

    return thin


def random(vectors: Vectors, parameters: Parameters) -> Thin:
    """Keep every element with probability ``density``, and divide what is kept by it (``rescale``).

    Source: Yu et al., "Language models are super Mario", ICML 2024, arXiv 2311.03099, section 3 (drop and rescale;
    drop rate p = 1 - density, factor 1 / (1 - p)). mergekit's factor is a ratio of sums of magnitudes instead.
    """
    density = float(parameters["density"])
    if density >= 1:
        return all_of
    seed, factor = int(parameters["seed"]), 1 / density if parameters["rescale"] else 1.0

    def thin(strip: Strip) -> torch.Tensor:
        for row, label in zip(strip.rows, vectors.labels, strict=True):
            number = _uniform(seed, vectors.name, label, strip.start, row)
            row.mul_(torch.lt(number, density, out=number)).mul_(factor)
        return strip.rows

    return thin


def ranked(vectors: Vectors, parameters: Parameters) -> Thin:
    """Keep every element with a probability that rises with the rank of its magnitude in its row.

    The smallest of a row is kept with probability ``density - epsilon``, the largest with ``density + epsilon``, the
    others in equal steps; what is kept is divided by its probability (``rescale``). The only element of a row is kept
    with probability ``density``. Equal magnitudes are ranked by their column. A vector is one row.

    Source: Deep, Bhardwaj, Poria, "DELLA-Merging", 2024, arXiv 2406.11617 (MagPrune, row by row; drop rate
    p_i = 1 - probability, factor 1 / (1 - p_i)). There epsilon is the whole range of probabilities, here half of it, as
    in mergekit, whose factor is a ratio of sums of magnitudes instead.
    """
    density, epsilon = float(parameters["density"]), float(parameters["epsilon"])
    if density >= 1:
        return all_of
    seed, rescale = int(parameters["seed"]), bool(parameters["rescale"])

    def thin(strip: Strip) -> torch.Tensor:
        for row, label in zip(strip.rows, vectors.labels, strict=True):
            probability = ranks(row.view(-1, vectors.columns)).mul_(2 * epsilon).add_(density - epsilon).view(-1)
            number = _uniform(seed, vectors.name, label, strip.start, row)
            row.mul_(torch.lt(number, probability, out=number))
            if rescale:
                row.div_(probability)
        return strip.rows

    return thin


def ranks(rows: torch.Tensor) -> torch.Tensor:
    """Rank of every element's magnitude in its row, from 0 for the smallest to 1 for the largest.

    Args:
        rows: (rows, columns), any float type; magnitudes are compared in float32, equal ones by column.

    Returns:
        (rows, columns) float32; 0.5 in rows of one element.
    """
    columns = rows.shape[1]
    if columns == 1:
        return torch.full_like(rows, 0.5, dtype=torch.float32)
    pattern = rows.to(torch.float32).view(torch.int32) & 0x7FFFFFFF
    # One sort of unique integers: a fifth of the time of an argsort, and the same order on every machine.
    keys = (pattern.cpu().numpy().astype(np.int64) << 32) | np.arange(columns, dtype=np.int64)
    keys.sort(axis=1)
    order = torch.from_numpy(keys & 0xFFFFFFFF).to(rows.device)
    steps = torch.linspace(0, 1, columns, device=rows.device).expand_as(order)
    return torch.empty_like(rows, dtype=torch.float32).scatter_(1, order, steps)


def _uniform(seed: int, name: str, label: str, start: int, row: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(uniform(seed, name, label, start, len(row))).to(row.device)


def _kept(strip: Strip, chosen: Sequence[Cut], vectors: Vectors) -> torch.Tensor:
    return kept(strip.rows, strip.start, chosen, vectors.name, vectors.labels)


def trimming_needs(parameters: Parameters) -> frozenset[str]:
    """What methods that rank magnitudes must know: nothing when they keep everything."""
    if float(parameters["density"]) >= 1:
        return frozenset()
    return frozenset({"model_magnitudes" if parameters.get("scope") == "model" else "magnitudes"})


_TRIM = "a pass for magnitude counts (kept in the store), a pass for the exact thresholds, the merge itself"
_DROP = "the merge itself, plus a random number per element and member"
_VOTE = "S = sign Σ w_i m_i d_i; b + scale · Σ w_i m_i d_i / Σ w_i over i with sign(m_i d_i) = S"
_RANKED = "p_i: density ± epsilon by rank of |d_i| in its row; m_i ~ Bernoulli(p_i) / p_i"
_TIES_SOURCE = "Yadav et al., NeurIPS 2023, arXiv 2306.01708; weights in the election as in mergekit"
_DARE_SOURCE = "Yu et al., ICML 2024, arXiv 2311.03099"
_DELLA_SOURCE = "Deep et al., 2024, arXiv 2406.11617; epsilon as in mergekit"
_CRUMBS_SOURCE = "Davari and Belilovsky, ECCV 2024, arXiv 2312.06795; parameters as in mergekit"

METHODS: tuple[Method, ...] = (
    Method(
        name="ties",
        summary="Keep the largest changes of every member, elect a sign per element, average the members that have it.",
        formula=f"m_i: largest density of |d_i|; {_VOTE}",
        source=_TIES_SOURCE,
        base="required",
        cost=_TRIM,
        use="members trained on different tasks, whose changes contradict each other",
        prepare=_elected(largest),
        needs=frozenset({"magnitudes"}),
        needs_with=trimming_needs,
    ),
    Method(
        name="dare_linear",
        summary="Drop random changes, enlarge the others so that the expectation stays, add up.",
        formula="m_i ~ Bernoulli(density) / density; b + scale · Σ w_i m_i d_i",
        source=_DARE_SOURCE,
        base="required",
        cost=_DROP,
        use="many small redundant changes, as long fine-tuning at small learning rates gives",
        prepare=_summed(random),
    ),
    Method(
        name="dare_ties",
        summary="Drop random changes and enlarge the others, then elect a sign per element and average what has it.",
        formula=f"m_i ~ Bernoulli(density) / density; {_VOTE}",
        source=f"{_DARE_SOURCE}; sign election: {_TIES_SOURCE}",
        base="required",
        cost=_DROP,
        use="as dare_linear, when members contradict each other",
        prepare=_elected(random),
    ),
    Method(
        name="della_linear",
        summary="Drop changes at random, the small ones of a row more often, enlarge the others, add up.",
        formula=f"{_RANKED}; b + scale · Σ w_i m_i d_i",
        source=_DELLA_SOURCE,
        base="required",
        cost=f"{_DROP} and a sort of every row",
        use="as dare_linear, at low densities",
        prepare=_summed(ranked),
        by_rows=True,
    ),
    Method(
        name="della_ties",
        summary="Drop changes at random, the small ones of a row more often, then elect signs and average what agrees.",
        formula=f"{_RANKED}; {_VOTE}",
        source=f"{_DELLA_SOURCE}; sign election: {_TIES_SOURCE}",
        base="required",
        cost=f"{_DROP} and a sort of every row",
        use="as dare_ties, at low densities",
        prepare=_elected(ranked),
        by_rows=True,
    ),
    Method(
        name="breadcrumbs",
        summary="Drop the very largest and the small changes of every member, add up the rest.",
        formula="m_i: density of |d_i| below its largest gamma; b + scale · Σ w_i m_i d_i",
        source=_CRUMBS_SOURCE,
        base="required",
        cost=_TRIM,
        use="members with a few outsized changes",
        prepare=_summed(tails),
        needs=frozenset({"magnitudes"}),
        needs_with=trimming_needs,
    ),
    Method(
        name="breadcrumbs_ties",
        summary="Drop the very largest and the small changes, then elect a sign per element and average what has it.",
        formula=f"m_i: density of |d_i| below its largest gamma; {_VOTE}",
        source=f"{_CRUMBS_SOURCE}; sign election: {_TIES_SOURCE}",
        base="required",
        cost=_TRIM,
        use="as breadcrumbs, when members contradict each other",
        prepare=_elected(tails),
        needs=frozenset({"magnitudes"}),
        needs_with=trimming_needs,
    ),
)
