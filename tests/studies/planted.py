"""Studies made up for tests: arms that differ from the baseline by known amounts, with known noise over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boom_ray.evaluation.comparison import TaskScore
from boom_ray.studies.results import ArmResult, Cost, Failed, StudyResult

TYPES = ("Retrieval", "STS", "Clustering")


def scores(values: Sequence[float], in_domain: int | None = None, start: int = 0):
    """One run's scores on tasks t0, t1…; the first ``in_domain`` (half of them by default) are in domain."""
    border = len(values) // 2 if in_domain is None else in_domain
    return {
        f"t{start + place}": TaskScore(
            f"t{start + place}", TYPES[place % 3], "in_domain" if place < border else "out_of_domain", value, None, "m"
        )
        for place, value in enumerate(values)
    }


def study(
    arms: Mapping[str, Sequence[Sequence[float]]],
    baseline: str = "bls",
    seeds: Sequence[int] | None = None,
    in_domain: int | None = None,
    base: Sequence[float] | None = None,
    failures: Sequence[Failed] = (),
    titles: Mapping[str, str] | None = None,
) -> StudyResult:
    """A study of arms by name, each a list of runs (seeds 0, 1…), each a list of scores by task."""
    runs = [
        ArmResult(name, seed, scores(values, in_domain), Cost(1.0 + place, 60.0 * (place + 1), place + 1, 0.5 * place))
        for place, (name, own) in enumerate(arms.items())
        for seed, values in enumerate(own)
    ]
    return StudyResult(
        name="planted",
        titles=titles or dict.fromkeys(arms, ""),
        seeds=tuple(seeds if seeds is not None else range(max(map(len, arms.values())))),
        baseline=baseline,
        runs=tuple(runs),
        base=None if base is None else scores(base, in_domain),
        failures=tuple(failures),
    )
