"""How much of the evaluation sets a finished corpus holds: a table per task, with the datasets it comes from.

What is compared is what the members are trained on: the queries and positives of the corpus' examples after ingest,
which has left out exact overlaps already, and near-duplicates on request (`corpus.near_duplicates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boom_ray.runtime import cause  # isort: skip  (sets Ray's environment before Ray is imported)

import pyarrow.parquet as pq
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from boom_ray.artifacts.tokens import EXAMPLE_FILE, PART
from boom_ray.config import EvaluationConfig, NearDuplicatesConfig, TaskConfig
from boom_ray.errors import StoreError
from boom_ray.evaluation.comparing import PAIRS, Findings, HeldTexts, Item, compare
from boom_ray.evaluation.crew import OFFLINE
from boom_ray.evaluation.folders import HeldOut
from boom_ray.evaluation.held_out import Found, read_folders, read_named
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.store import Artifact, Draft, Store

KIND = "contamination"
ROWS_AT_ONCE = 8192
SHOWN = 300  # characters of a text in an example
FORMAT = 1  # raise it when the same texts give other figures


def contamination(
    store: Store,
    corpus: Artifact,
    config: EvaluationConfig,
    settings: NearDuplicatesConfig | None = None,
    report: Report = silent,
) -> Artifact:
    """Compare the examples of a corpus with every evaluation task, on Ray tasks, one per part of the corpus.

    Texts of mteb's own tasks are read if mteb's data is on this machine; else the task is listed as not checked. Needs
    a running cluster when there is such a task, or when the store has no such comparison.

    Args:
        store: holds the corpus; takes an artifact of kind ``contamination``.
        corpus: what `boom_ray.corpus.ingest.ingest` returned.
        config: the tasks; every name is made a path, and benchmarks are tasks.
        settings: what counts as nearly the same; the defaults if None.
        report: takes progress, counted in parts.

    Returns:
        The artifact. Figures: ``tasks``, task to ``kinds`` (queries, passages or texts, to the number of distinct
        ``texts``, of those that occur ``exact``, of others that occur ``near``, and both by dataset) and ``pairs``
        (`contamination_pairs`); ``unchecked``, task to reason; ``examples``, dataset to rows compared.

    Raises:
        EvaluationError: a task's folder is faulty.
        StoreError: a part of the corpus is missing.
    """
    settings = settings or NearDuplicatesConfig()
    found = read_folders(config) | _read_offline([task for task in config.all_tasks if task.path is None])
    texts = {task: own for task, own in found.items() if not isinstance(own, str)}
    unchecked = {task: own for task, own in found.items() if isinstance(own, str)}
    inputs = {"corpus": corpus.fingerprint} | {f"task {name}": _digest(own) for name, own in texts.items()}
    spec = {"near": settings.identity(), "unchecked": sorted(unchecked)}

    def build(draft: Draft) -> None:
        held, items = HeldTexts.of(texts, settings)
        findings = _compare_parts(store, held, corpus.figures["parts"], report)
        draft.figures = {
            "tasks": {task: _task_figures(own, held, findings) for task, own in items.items()},
            "unchecked": unchecked,
            "examples": {name: facts["rows"] for name, facts in corpus.figures["datasets"].items()},
        }

    artifact = store.materialize(KIND, spec, inputs, build, FORMAT)
    report(Event(KIND, "corpus", 1, 1))
    return artifact


def _digest(texts: Sequence[HeldOut]) -> str:
    return digest(sorted([one.role, *one.forms] for one in texts))


def _read_offline(tasks: Sequence[TaskConfig]) -> dict[str, Found]:
    """The texts of mteb's own tasks that are on this machine, read in a process that may not use the network."""
    if not tasks:
        return {}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(read_named).options(num_cpus=0, scheduling_strategy=here, runtime_env={"env_vars": OFFLINE})
    found: dict[str, Found] = ray.get(remote.remote(tasks))
    return found


def _compare_parts(store: Store, held: HeldTexts, parts: Mapping[str, Sequence[str]], report: Report) -> Findings:
    shared = ray.put(Comparison(store, held))
    remote = ray.remote(compare_part)
    waiting = [remote.remote(shared, dataset, key) for dataset, keys in parts.items() for key in keys]
    total, findings = len(waiting), Findings()
    try:
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            findings.join(ray.get(ready))
            report(Event(KIND, "corpus", total - len(waiting), total + 1))
    except Exception as error:
        for ref in waiting:
            ray.cancel(ref)
        raise cause(error) from None
    return findings


@dataclass(frozen=True)
class Comparison:
    """What the tasks of all parts share."""

    store: Store
    held: HeldTexts


def compare_part(shared: Comparison, dataset: str, key: str) -> Findings:
    """Look for the texts of all tasks in one part of a dataset; a few thousand rows are in memory at a time.

    Raises:
        StoreError: the part is missing.
    """
    part = shared.store.get(PART, key)
    if part is None:
        raise StoreError(f"Part {key} of the corpus is missing from {shared.store.root}; run the job again.")
    findings = Findings()
    with pq.ParquetFile(part.local() / EXAMPLE_FILE) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=["query", "positives"]):
            texts = [*batch["query"].to_pylist(), *batch["positives"].flatten().to_pylist()]
            findings.join(compare(shared.held, dataset, texts))
    findings.trim(shared.held)
    return findings


def _task_figures(items: Sequence[Item], held: HeldTexts, findings: Findings) -> dict[str, Any]:
    roles = dict.fromkeys(item.role for item in items)
    kinds = {role: _kind_figures([item for item in items if item.role == role], findings) for role in roles}
    return {"kinds": kinds, "pairs": list(_pairs(items, held, findings))}


def _kind_figures(items: Sequence[Item], findings: Findings) -> dict[str, Any]:
    """Counts over all datasets together and over each; a text that occurs exactly does not count as near, too."""
    everywhere = set().union(*findings.exact.values()), set().union(*findings.near.values())
    exact, near = _count(items, *everywhere)
    datasets = {}
    for dataset in sorted(findings.exact):
        own = _count(items, findings.exact[dataset], findings.near[dataset])
        if any(own):
            datasets[dataset] = dict(zip(("exact", "near"), own, strict=True))
    return {"texts": len(items), "exact": exact, "near": near, "datasets": datasets}


def _count(items: Sequence[Item], exact: set[int], near: set[int]) -> tuple[int, int]:
    same = [not exact.isdisjoint(item.forms) for item in items]
    close = [not found and not near.isdisjoint(item.forms) for item, found in zip(items, same, strict=True)]
    return sum(same), sum(close)


def _pairs(items: Sequence[Item], held: HeldTexts, findings: Findings) -> Iterator[dict[str, Any]]:
    """Up to `PAIRS` examples, chosen by hash: first near ones, which must be looked at, then exact ones."""
    numbers = {form for item in items for form in item.forms}
    exact, near = findings.pairs
    chosen = [("near", n, near[n]) for n in sorted(numbers & near.keys())]
    chosen = chosen[:PAIRS] + [("exact", n, exact[n]) for n in sorted(numbers & exact.keys())]
    for kind, number, pair in chosen[:PAIRS]:
        yield {
            "found": kind,
            "similarity": round(pair.similarity, 3),
            "dataset": pair.dataset,
            "evaluation text": _shown(held.index.texts[number].as_py().decode("utf-8", "replace")),
            "training text": _shown(pair.text),
        }


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def contamination_table(artifact: Artifact) -> list[dict[str, Any]]:
    """A row per task and kind of its texts, for reports.

    Returns:
        ``texts``: how many distinct ones; ``exact`` and ``near``: how many of them the corpus holds, also in percent;
        ``from``: training datasets with the number of those texts in each. Tasks that were not checked say why.
    """
    rows = [
        _row(task, kind, facts)
        for task, found in sorted(artifact.figures["tasks"].items())
        for kind, facts in found["kinds"].items()
    ]
    for task, reason in sorted(artifact.figures["unchecked"].items()):
        empty = dict.fromkeys(("texts", "exact", "exact %", "near", "near %"))
        rows.append({"task": task, "kind": "not checked", **empty, "from": reason})
    return rows


def _row(task: str, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    share = 100 / max(1, facts["texts"])
    most = sorted(facts["datasets"].items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    return {
        "task": task,
        "kind": kind,
        "texts": facts["texts"],
        "exact": facts["exact"],
        "exact %": round(facts["exact"] * share, 2),
        "near": facts["near"],
        "near %": round(facts["near"] * share, 2),
        "from": "; ".join(f"{name}: {sum(counts.values())}" for name, counts in most),
    }


def contamination_pairs(artifact: Artifact) -> list[dict[str, Any]]:
    """Up to ten pairs per task of its text and the closest training text, for reports."""
    tasks = sorted(artifact.figures["tasks"].items())
    return [{"task": task, **pair} for task, found in tasks for pair in found["pairs"]]
