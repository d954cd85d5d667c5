"""From a step of the plan to the texts, indices and masks that one worker needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.artifacts.choice import I64, Choice, Ragged, choose
from boom_ray.artifacts.plan import Step, share
from boom_ray.artifacts.tokens import F32, I32, TokenDataset, TokenExample
from boom_ray.hashing import U64, mix64, stream_key

MIXED = "mixed"
NO_KEYS: U64 = np.empty(0, dtype=np.uint64)


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step, and the hashes and scores of the whole step.

    Shapes: B queries in the step, b = B/W of them on this worker, K hard negatives at most, P positives at most.

    Attributes:
        dataset: the step's dataset, `MIXED` for several.
        size: B.
        ids: (B,) ids of the examples, for messages.
        texts: distinct token arrays of this worker's share.
        index: (b, 2+K) place in ``texts`` of query, positive and negatives; absent negatives repeat the positive.
        present: (B, 1+K) bool; False for absent negatives.
        query_keys: (B,) int64 views of the hashes of queries' texts.
        known_positives: (B, P) hashes of those positives of each query that are texts of the step, for no other can be
            met; padded with the first of them.
        candidate_keys: (B, 1+K) hashes of the passages in the step; 0 for absent negatives.
        labels: (B,) hashes of labels, None for unlabelled data; of several datasets, those of each differ from all
            others, as do those of examples without one.
        scores: (B,) float32 graded similarity of query and positive in [0, 1], NaN where a pair has none; None if no
            pair of the step has one.
        teacher: (B, 1+K) float32 a teacher's scores of the passages on its own scale, 0 for absent negatives, NaN for
            present passages without one; None if no passage of the step has one.
        mixture: dataset and number of examples of the parts of a step of several; empty for one.
    """

    dataset: str
    size: int
    ids: U64
    texts: list[I32]
    index: torch.Tensor
    present: torch.Tensor
    query_keys: torch.Tensor
    known_positives: torch.Tensor
    candidate_keys: torch.Tensor
    labels: torch.Tensor | None
    scores: torch.Tensor | None
    teacher: torch.Tensor | None
    mixture: tuple[tuple[str, int], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Dataset and number of examples of every part of the step, in order."""
        return self.mixture or ((self.dataset, self.size),)


class BatchReader:
    """Reads steps from the token corpus.

    Args:
        corpus: dataset to its examples.
        negatives: K, most hard negatives per query.
        seed: seed of the choice among an example's positives and negatives.
        rank: this worker.
        workers: W.
        without_negatives: datasets whose hard negatives are left out, as graded losses look at none.
    """

    def __init__(
        self,
        corpus: Mapping[str, TokenDataset],
        negatives: int,
        seed: int,
        rank: int,
        workers: int,
        without_negatives: Collection[str] = (),
    ) -> None:
        """Keep what every step needs."""
        self.corpus, self.negatives = corpus, negatives
        self.seed, self.rank, self.workers = seed, rank, workers
        self.without_negatives = without_negatives

    def read(self, *parts: Step) -> Batch:
        """The batch of a step of one part or several; a pure function of (corpus, parts, seed, rank, workers)."""
        found = [self._part(step) for step in parts]
        examples = [example for part in found for example in part.examples]
        ids, hashes = (np.concatenate([getattr(part, name) for part in found]) for name in ("ids", "hashes"))
        positives = Ragged.of([example.positive_keys for example in examples])
        negatives = Ragged.of([keys for part in found for keys in part.negatives])
        choice = choose(hashes, positives.counts, negatives.counts, self.negatives)
        keys = choice.of(positives, negatives)
        queries = np.array([example.query_key for example in examples], dtype=np.uint64)
        known = positives.where(np.isin(positives.values, np.concatenate([keys[choice.present], queries])))
        texts, index = _texts(examples, choice, share(len(ids), self.rank, self.workers))
        return Batch(
            dataset=parts[0].dataset if len(parts) == 1 else MIXED,
            size=len(ids),
            ids=ids,
            texts=texts,
            index=torch.from_numpy(index),
            present=torch.from_numpy(choice.present),
            query_keys=_signed(queries),
            known_positives=_signed(known.padded()),
            candidate_keys=_signed(keys),
            labels=_labels(found),
            scores=_scores(examples),
            teacher=_teacher(examples, choice, positives.counts, negatives.counts),
            mixture=tuple((step.dataset, len(step.rows)) for step in parts) if len(parts) > 1 else (),
        )

    def _part(self, step: Step) -> _Part:
        source = self.corpus[step.dataset]
        examples, ids = source.examples(step.rows), source.ids[step.rows]
        bare = step.dataset in self.without_negatives
        negatives = [NO_KEYS if bare else example.negative_keys for example in examples]
        hashes = mix64(ids, stream_key("choice", self.seed, step.epoch, step.dataset))
        return _Part(step.dataset, ids, hashes, examples, negatives)


@dataclass(frozen=True)
class _Part:
    """The examples of one dataset in a step: ids, hashes that choose among their texts, and keys of their negatives."""

    dataset: str
    ids: U64
    hashes: U64
    examples: list[TokenExample]
    negatives: list[U64]


def _texts(examples: Sequence[TokenExample], choice: Choice, own: slice) -> tuple[list[I32], npt.NDArray[np.int64]]:
    """Distinct token arrays of the ``own`` examples and the (b, 2+K) places of query, positive and negatives."""
    texts: list[I32] = []
    present = choice.present[own]
    used = present.sum(axis=1) - 1
    rows = zip(examples[own], choice.positive[own].tolist(), choice.negatives[own].tolist(), used.tolist(), strict=True)
    for example, positive, negatives, count in rows:
        texts += [example.query, example.positives[positive], *example.negatives.take(negatives[:count])]
    keys = [text.tobytes() for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    places = dict(zip(distinct, range(len(distinct)), strict=True))
    there = np.concatenate([np.ones((len(present), 1), np.bool_), present], axis=1)
    index = np.zeros(there.shape, dtype=np.int64)
    index[there] = [places[key] for key in keys]
    return list(distinct.values()), np.where(there, index, index[:, 1:2])


def _labels(parts: Sequence[_Part]) -> torch.Tensor | None:
    """(B,) hashes of the labels of all parts; None if no part is labelled, that is if one of its examples has none."""
    found = [_labels_of(part) for part in parts]
    if len(parts) == 1 or all(labels is None for labels in found):
        return None if found[0] is None else _signed(found[0])
    apart = [
        mix64(part.ids if labels is None else labels, stream_key("label", part.dataset, labels is None))
        for part, labels in zip(parts, found, strict=True)
    ]
    return _signed(np.concatenate(apart))


def _labels_of(part: _Part) -> U64 | None:
    labels = [example.label_key for example in part.examples]
    return None if None in labels else np.array(labels, dtype=np.uint64)


def _scores(examples: Sequence[TokenExample]) -> torch.Tensor | None:
    """(B,) graded scores, NaN for none; None if there is no score at all."""
    scores = [math.nan if (score := example.score) is None else score for example in examples]
    return None if all(map(math.isnan, scores)) else torch.tensor(scores, dtype=torch.float32)


def _teacher(examples: Sequence[TokenExample], choice: Choice, positives: I64, negatives: I64) -> torch.Tensor | None:
    """(B, 1+K) the teacher's scores of the chosen passages; None if there is none."""
    lists = [(example.positive_scores, example.negative_scores) for example in examples]
    if all(one is None and other is None for one, other in lists):
        return None
    found = choice.of(_scored([one for one, _ in lists], positives), _scored([other for _, other in lists], negatives))
    return torch.from_numpy(found)


def _scored(lists: Sequence[F32 | None], counts: I64) -> Ragged:
    """Scores of every text, NaN where an example has none."""
    rows = zip(lists, counts.tolist(), strict=True)
    return Ragged.of([np.full(count, np.nan, np.float32) if scores is None else scores for scores, count in rows])


def _signed(values: U64) -> torch.Tensor:
    """The same bits as int64, which torch compares on every device."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.uint64).view(np.int64))
