"""What became of every row: the table of counts per dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boom_ray.config import DatasetConfig
from boom_ray.config.loss import GRADED
from boom_ray.corpus.columns import NO_SCORE, TEACHER, score_needed
from boom_ray.corpus.examples import BELOW
from boom_ray.corpus.staging import CONTRASTIVE, LABELLED, TAUGHT
from boom_ray.errors import DataError
from boom_ray.store import Artifact

REJECTED = "rejected: "


def dataset_figures(read: dict[str, int], sealed: dict[str, Any]) -> dict[str, Any]:
    """Figures of a dataset artifact.

    Args:
        read: what the first pass counted (`boom_ray.corpus.staging.Stage.counts`).
        sealed: what the second pass counted (`boom_ray.corpus.seal.part_figures`).

    Returns:
        ``read`` = ``rows`` + ``duplicates`` + ``overlapping`` + ``near_duplicates`` + all of ``rejected`` + all of
        ``set_aside``, in rows; ``negatives`` left out by reason, in texts; ``mean_tokens`` per text by role;
        ``taught``, the examples read whose positives and negatives have a teacher's scores.
    """
    tokens = sealed["tokens"]
    roles = (("query", "queries"), ("positive", "positives"), ("negative", "negatives"))
    return {
        "read": read.get("read", 0),
        "rows": sealed["rows"],
        "duplicates": sealed["duplicates"],
        "overlapping": sealed["overlapping"],
        "overlapping_by_task": sealed["overlapping_by_task"],
        "near_duplicates": sealed["near_duplicates"],
        "near_duplicates_by_task": sealed["near_duplicates_by_task"],
        "rejected": {name.removeprefix(REJECTED): n for name, n in sorted(read.items()) if name.startswith(REJECTED)},
        "set_aside": sealed["set_aside"] | ({BELOW: read[BELOW]} if read.get(BELOW) else {}),
        "negatives_left_out": {
            name.removeprefix("negatives "): n for name, n in sorted(read.items()) if name.startswith("negatives ")
        },
        TAUGHT: read.get(TAUGHT, 0),
        "texts": {plural: tokens.get(plural, 0) for _, plural in roles},
        "mean_tokens": {
            one: round(tokens.get(f"{one}_tokens", 0) / max(1, tokens.get(plural, 0)), 2) for one, plural in roles
        },
    }


def counts_table(corpus: Artifact) -> list[dict[str, Any]]:
    """One row per dataset of a corpus, for reports: what was read, kept, left out and why; rows, negatives in texts."""
    return [_row(name, facts) for name, facts in sorted(corpus.figures["datasets"].items())]


def _row(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    reasons = [f"{reason}: {count}" for reason, count in facts["rejected"].items()]
    reasons += [f"{reason}: {count}" for reason, count in facts["set_aside"].items()]
    reasons += [f"overlaps {task}: {count}" for task, count in facts["overlapping_by_task"].items()]
    near = facts.get("near_duplicates_by_task", {})  # artifacts of earlier versions have none
    reasons += [f"near-duplicates of {task}: {count}" for task, count in near.items()]
    reasons += [f"negatives {reason}: {count}" for reason, count in facts["negatives_left_out"].items()]
    return {
        "dataset": name,
        "task": facts["task_type"],
        "loss": facts["loss"]["kind"],
        "in-batch": "-" if facts["loss"]["kind"] in GRADED else "yes" if facts["in_batch"] else "no",
        "read": facts["read"],
        "kept": facts["rows"],
        "duplicate": facts["duplicates"],
        "overlapping": facts["overlapping"],
        "near-duplicate": facts.get("near_duplicates", 0),
        "rejected": sum(facts["rejected"].values()),
        "set aside": sum(facts["set_aside"].values()),
        "tokens/query": facts["mean_tokens"]["query"],
        "tokens/positive": facts["mean_tokens"]["positive"],
        "why": "; ".join(reasons),
    }


def empty_message(name: str, facts: dict[str, Any]) -> str:
    """The error text of a dataset that keeps no row."""
    left = {"duplicate": facts["duplicates"], "in an evaluation set": facts["overlapping"]}
    left["nearly in an evaluation set"] = facts["near_duplicates"]
    left |= facts["rejected"] | facts["set_aside"]
    reasons = ", ".join(f"{reason}: {count}" for reason, count in left.items() if count)
    return (
        f"Dataset {name} keeps no row of {facts['read']} read ({reasons or 'its files are empty'}). Check its source, "
        f"columns and task_type, or take it out of corpus.datasets."
    )


def check_scores(dataset: DatasetConfig, read: Mapping[str, int]) -> None:
    """Refuse a dataset none of whose rows has the scores that its loss needs.

    Args:
        dataset: its configuration.
        read: what the first pass counted (`boom_ray.corpus.staging.Stage.counts`).

    Raises:
        DataError: there is no such row.
    """
    kept = read.get(CONTRASTIVE, 0) + read.get(LABELLED, 0)
    if dataset.loss.is_graded and not kept and read.get(REJECTED + NO_SCORE):
        raise DataError(f"Dataset {dataset.name}: {score_needed(dataset)}.")
    if kept:
        check_taught(dataset, read.get(TAUGHT, 0))


def check_taught(dataset: DatasetConfig, taught: int) -> None:
    """Refuse a dataset whose loss follows a teacher, but none of whose examples has a teacher's scores.

    Raises:
        DataError: the loss needs scores and ``taught``, the number of examples that have them, is 0.
    """
    if dataset.loss.is_taught and not taught:
        raise DataError(
            f"Dataset {dataset.name}: corpus.datasets.{dataset.name}.loss.kind={dataset.loss.kind} needs a teacher's "
            f"scores, but no example has both of the columns {' and '.join(TEACHER)}. Add them to the source as lists "
            f"of numbers, one per text of pos and neg, or choose loss.kind=infonce."
        )
