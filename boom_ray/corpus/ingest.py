"""The corpus stage: sources in, one artifact per dataset and one that names them all out.

Two passes over what the store does not have yet: `boom_ray.corpus.staging` (one Ray Data pipeline for all new datasets)
and `boom_ray.corpus.seal` (one Ray task per bucket). The same rows give the same parts, byte for byte, however they are
divided into files and fragments and on however many workers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boom_ray.runtime
from boom_ray.artifacts.tokens import PART
from boom_ray.config import CorpusConfig, DatasetConfig
from boom_ray.corpus.counts import check_scores, check_taught, dataset_figures, empty_message
from boom_ray.corpus.decontaminate import EvaluationTexts, NearTexts, held_out_digest, near_texts_digest
from boom_ray.corpus.seal import Sealing, SealPlan, bucket_pool, join_pools, part_figures, seal
from boom_ray.corpus.sources import SourceFile, fragments, locate, source_digest
from boom_ray.corpus.staging import CONTRASTIVE, LABELLED, TAUGHT, ReadPlan, Stage, bucket_count, stage
from boom_ray.corpus.tokenizing import TokenizerSpec, TokenRules
from boom_ray.errors import DataError
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.store import Artifact, Store, artifact_key

__all__ = ["EvaluationTexts", "TokenizerSpec", "ingest"]

DATASET = "dataset"
CORPUS = "corpus"
REJECTS_FILE = "rejects.jsonl"
TextsByTask = Mapping[str, Sequence[str]]
FORMAT = 2  # raise it when the same spec gives another content
_ELSEWHERE = (
    "name",
    "source",
    "in_batch",
    "loss",
)  # of a dataset; they change what is done with its examples, not them


@dataclass(frozen=True)
class _Plan:
    """One dataset: where its rows are and what its artifact is called."""

    dataset: DatasetConfig
    files: list[SourceFile]
    spec: dict[str, Any]
    inputs: dict[str, Any]

    @property
    def key(self) -> str:
        return artifact_key(DATASET, self.spec, self.inputs, FORMAT)


def ingest(
    store: Store,
    config: CorpusConfig,
    model: TokenizerSpec,
    held_out: EvaluationTexts,
    report: Report = silent,
    near_texts: TextsByTask | None = None,
) -> Artifact:
    """Clean, deduplicate, decontaminate and tokenise all datasets; those that the store has are not read again.

    Needs a running Ray (`boom_ray.runtime.cluster`) only when a dataset is new.

    Args:
        store: where artifacts go.
        config: the datasets and how they are cleaned; sources are paths, URLs or hub names.
        model: tokenizer and templates.
        held_out: sorted keys (`boom_ray.hashing.normalized_text_key`) of the evaluation texts by task.
        report: takes progress; units are datasets, counted in fragments and parts.
        near_texts: the evaluation texts themselves by task; needed, and used, if ``config.near_duplicates`` is set.

    Returns:
        Artifact of kind ``corpus``. Figures: ``datasets`` (name to counts, see `boom_ray.corpus.counts`) and ``parts``
        (name to keys of its part artifacts, in the order of their ids). Its spec and ``datasets`` also tell every
        dataset's loss policy: ``in_batch`` and ``loss`` (`boom_ray.config.LossConfig.identity`). Its fingerprint is the
        hash of all datasets' names, ids and tokens.

    Raises:
        DataError: a source, a row or a dataset cannot be used, or a dataset lacks the scores that its loss needs.
        StoreError: the store cannot be written.
    """
    texts = held_out if config.decontaminate else {}
    assert config.near_duplicates is None or near_texts is not None
    near = near_texts or {}
    plans = [_plan(dataset, config, model, texts, near) for dataset in config.datasets]
    done = {plan.key: _stored(store, plan.key) for plan in plans}
    for plan in plans:
        if (artifact := done[plan.key]) is not None:
            report(Event("corpus", plan.dataset.name, 1, 1, {"rows": artifact.figures["rows"]}, "cached"))
    missing = list({plan.key: plan for plan in plans if done[plan.key] is None}.values())
    made = _make(store, missing, config, model, texts, near, report) if missing else {}
    artifacts = {key: artifact or made[key] for key, artifact in done.items()}
    for plan in plans:
        check_taught(plan.dataset, artifacts[plan.key].figures[TAUGHT])  # it may have been made for another loss
    return _corpus(store, plans, artifacts)


def _plan(
    dataset: DatasetConfig, config: CorpusConfig, model: TokenizerSpec, held_out: EvaluationTexts, near: TextsByTask
) -> _Plan:
    files = locate(dataset)
    spec = {name: value for name, value in dataset.identity().items() if name not in _ELSEWHERE}
    spec |= {
        "symmetric": dataset.is_symmetric,
        "graded": dataset.loss.is_graded,  # all of the loss that decides what is an example
        "max_query_tokens": config.max_query_tokens,
        "max_passage_tokens": config.max_passage_tokens,
        "max_negatives": config.max_negatives,
        "on_bad_row": config.on_bad_row,
        **model.identity(),
    }
    inputs = {"source": source_digest(files), "held_out": held_out_digest(held_out)}
    if config.near_duplicates is not None:  # without, keys stay what they were before there was such a thing
        spec["near_duplicates"] = config.near_duplicates.identity()
        inputs["near_texts"] = near_texts_digest(near)
    return _Plan(dataset, files, spec, inputs)


def _stored(store: Store, key: str) -> Artifact | None:
    """The dataset's artifact, if it and all its parts are whole."""
    artifact = store.get(DATASET, key)
    if artifact is None or any(store.get(PART, part) is None for part in artifact.figures["parts"]):
        return None
    return artifact


def _make(
    store: Store,
    plans: list[_Plan],
    config: CorpusConfig,
    model: TokenizerSpec,
    held_out: EvaluationTexts,
    near: TextsByTask,
    report: Report,
) -> dict[str, Artifact]:
    """Both passes over datasets that are new; returns their artifacts by key."""
    size = config.fragment_mb << 20
    pieces = [fragments(plan.files, index, size) for index, plan in enumerate(plans)]
    read_plans = [
        ReadPlan(
            plan.dataset,
            plan.key,
            bucket_count(sum(file.size for file in plan.files)),
            config.max_negatives,
            config.on_bad_row == "error",
        )
        for plan in plans
    ]
    progress = _Progress(report, {plan.key: plan.dataset.name for plan in plans})
    progress.expect({plan.key: len(own) for plan, own in zip(plans, pieces, strict=True)})
    staged = stage(store, read_plans, [piece for own in pieces for piece in own], progress.fragments)
    settings = config.near_duplicates
    sealing = Sealing(store, staged, model, held_out, NearTexts.of(near, settings) if settings else None)
    try:
        for plan in plans:
            check_scores(plan.dataset, staged.counts(plan.key))
        parts = _seal_all(sealing, [_seal_plan(plan, config) for plan in plans], progress)
        made = {plan.key: _commit(store, plan, staged, parts[plan.key], report) for plan in plans}
    except DataError:
        staged.remove()  # the data must be changed, so it would not be found again
        raise
    staged.remove()
    return made


def _seal_plan(plan: _Plan, config: CorpusConfig) -> SealPlan:
    dataset = plan.dataset
    rules = TokenRules(
        dataset.instruction,
        dataset.is_symmetric,
        config.max_query_tokens,
        config.max_passage_tokens,
        dataset.passage_instruction,
    )
    return SealPlan(dataset, plan.key, rules)


def _seal_all(sealing: Sealing, plans: list[SealPlan], progress: _Progress) -> dict[str, list[Artifact]]:
    """Make the parts of all datasets; returns them by dataset key, in the order of their buckets."""
    import ray

    shared = ray.put(sealing)
    pool_of, join, seal_one = ray.remote(bucket_pool), ray.remote(join_pools), ray.remote(seal)
    owners: dict[Any, tuple[str, int]] = {}
    for plan in plans:
        buckets = sealing.stage.buckets(plan.key)
        pools = None
        if _is_labelled(sealing.stage, plan):
            pools = join.remote(plan, *[pool_of.remote(shared, plan, bucket) for bucket in buckets])
        for number, bucket in enumerate(buckets):
            owners[seal_one.remote(shared, plan, bucket, pools)] = (plan.key, number)
        progress.expect({plan.key: len(buckets)})
    found: dict[str, dict[int, Artifact]] = {plan.key: {} for plan in plans}
    waiting = list(owners)
    try:
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            key, number = owners[ready]
            found[key][number] = ray.get(ready)
            progress.part(key)
    except Exception as error:
        for ref in waiting:
            ray.cancel(ref)
        raise boom_ray.runtime.cause(error) from None
    return {key: [made[number] for number in sorted(made)] for key, made in found.items()}


def _is_labelled(staged: Stage, plan: SealPlan) -> bool:
    """Whether the dataset's rows have labels instead of positives.

    Raises:
        DataError: some have and some have not.
    """
    counts = staged.counts(plan.key)
    if counts[LABELLED] and counts[CONTRASTIVE]:
        raise DataError(
            f"Dataset {plan.dataset.name} has rows of two forms: {counts[LABELLED]} with a text and a label, "
            f"{counts[CONTRASTIVE]} with a query and positives. Make two datasets of them, or name the columns."
        )
    return counts[LABELLED] > 0


def _commit(store: Store, plan: _Plan, staged: Stage, parts: list[Artifact], report: Report) -> Artifact:
    """The dataset's artifact: its counts, its parts' keys and its rejects.

    Raises:
        DataError: the dataset keeps no row.
    """
    sealed = part_figures(parts)
    figures = dataset_figures(dict(staged.counts(plan.key)), sealed)
    if not figures["rows"]:
        raise DataError(empty_message(plan.dataset.name, figures))
    draft = store.draft(DATASET, plan.key)
    try:
        if figures["rejected"]:
            with (draft.path / REJECTS_FILE).open("w", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in staged.rejects(plan.key))
        draft.figures = figures | {"parts": [part.key for part in parts]}
        draft.fingerprint = digest({"rows": figures["rows"], "content": sealed["content"]})
        artifact = store.commit(draft, DATASET, plan.key, plan.spec, plan.inputs)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)
    report(Event("corpus", plan.dataset.name, 1, 1, {"rows": figures["rows"]}))
    return artifact


def _corpus(store: Store, plans: list[_Plan], artifacts: dict[str, Artifact]) -> Artifact:
    spec = {
        plan.dataset.name: {
            "key": plan.key,
            "task_type": plan.dataset.task_type,
            "in_batch": plan.dataset.uses_in_batch,
            "loss": plan.dataset.loss.identity(),
        }
        for plan in plans
    }
    inputs = {plan.dataset.name: artifacts[plan.key].fingerprint for plan in plans}

    def build(draft: Any) -> None:
        tables = {plan.dataset.name: dict(artifacts[plan.key].figures) for plan in plans}
        parts = {name: facts.pop("parts") for name, facts in tables.items()}
        draft.figures = {"datasets": {name: facts | spec[name] for name, facts in tables.items()}, "parts": parts}
        draft.fingerprint = digest(inputs)

    return store.materialize(CORPUS, spec, inputs, build, FORMAT)


class _Progress:
    """Turns fragments and parts done into events."""

    def __init__(self, report: Report, names: dict[str, str]) -> None:
        self._report, self._names = report, names
        self._total = dict.fromkeys(names, 0)
        self._read = dict.fromkeys(names, 0)
        self._parts = dict.fromkeys(names, 0)

    def expect(self, counts: dict[str, int]) -> None:
        """Add work to come."""
        for key, count in counts.items():
            self._total[key] += count

    def fragments(self, done: dict[str, int]) -> None:
        """Fragments read so far."""
        for key, count in done.items():
            if count != self._read[key]:
                self._read[key] = count
                self._send(key, "reading")

    def part(self, key: str) -> None:
        """One more part is made."""
        self._parts[key] += 1
        self._send(key, "tokenising")

    def _send(self, key: str, note: str) -> None:
        done = self._read[key] + self._parts[key]
        self._report(Event("corpus", self._names[key], done, self._total[key] + 1, note=note))
