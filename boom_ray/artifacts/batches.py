"""From a step of the plan to the texts, indices and masks that one worker needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.artifacts.plan import Step, share
from boom_ray.artifacts.tokens import I32, TokenDataset, TokenExample
from boom_ray.hashing import U64, mix64, stream_key

U64_MAX = 2**64


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step, and the hashes of the whole step.

    Shapes: B queries in the step, b = B/W of them on this worker, K hard negatives at most, P positives at most.

    Attributes:
        dataset: the step's dataset.
        size: B.
        ids: (B,) ids of the examples, for messages.
        texts: distinct token arrays of this worker's share.
        index: (b, 2+K) place in ``texts`` of query, positive and negatives; absent negatives repeat the positive.
        present: (B, 1+K) bool; False for absent negatives.
        query_keys: (B,) int64 views of the hashes of queries' texts.
        known_positives: (B, P) hashes of all positives, padded with the first.
        candidate_keys: (B, 1+K) hashes of the passages in the step.
        labels: (B,) hashes of labels, None for unlabelled data.
        in_batch: whether other examples' passages are negatives.
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
    in_batch: bool


@dataclass(frozen=True)
class Choice:
    """Which positive and negatives of an example take part in a step; numbers into its lists."""

    positive: int
    negatives: tuple[int, ...]


class BatchReader:
    """Reads steps from the token corpus.

    Args:
        corpus: dataset to its examples.
        in_batch: dataset to its negatives policy.
        negatives: K, most hard negatives per query.
        seed: seed of the choice among an example's positives and negatives.
        rank: this worker.
        workers: W.
    """

    def __init__(
        self,
        corpus: Mapping[str, TokenDataset],
        in_batch: Mapping[str, bool],
        negatives: int,
        seed: int,
        rank: int,
        workers: int,
    ) -> None:
        """Keep what every step needs."""
        self.corpus, self.in_batch, self.negatives = corpus, in_batch, negatives
        self.seed, self.rank, self.workers = seed, rank, workers

    def read(self, step: Step) -> Batch:
        """The batch of a step; a pure function of (corpus, step, seed, rank, workers)."""
        source = self.corpus[step.dataset]
        rows = step.rows
        examples = [source.example(int(row)) for row in rows]
        ids = source.ids[rows]
        choices = self._choose(ids, examples, step)
        width = max((len(choice.negatives) for choice in choices), default=0)
        own = share(len(rows), self.rank, self.workers)
        texts, index = _own_texts(examples[own], choices[own], width)
        present = np.zeros((len(rows), 1 + width), dtype=np.bool_)
        keys = np.zeros((len(rows), 1 + width), dtype=np.uint64)
        for place, (example, choice) in enumerate(zip(examples, choices, strict=True)):
            used = 1 + len(choice.negatives)
            present[place, :used] = True
            keys[place, 0] = example.positive_keys[choice.positive]
            keys[place, 1:used] = example.negative_keys[list(choice.negatives)]
        labels = [example.label_key for example in examples]
        known = None if any(label is None for label in labels) else np.array(labels, dtype=np.uint64)
        return Batch(
            dataset=step.dataset,
            size=len(rows),
            ids=ids,
            texts=texts,
            index=torch.from_numpy(index),
            present=torch.from_numpy(present),
            query_keys=_signed(np.array([example.query_key for example in examples], dtype=np.uint64)),
            known_positives=_signed(_padded([example.positive_keys for example in examples])),
            candidate_keys=_signed(keys),
            labels=None if known is None else _signed(known),
            in_batch=self.in_batch[step.dataset],
        )

    def _choose(self, ids: U64, examples: Sequence[TokenExample], step: Step) -> list[Choice]:
        """One positive and K negatives of every example by keyed hash: another choice each epoch, the same each run."""
        hashes = mix64(ids, stream_key("choice", self.seed, step.epoch, step.dataset))
        choices = []
        for example, value in zip(examples, hashes, strict=True):
            positive = int(value) * len(example.positives) // U64_MAX
            count = len(example.negatives)
            chosen = range(count)
            if count > self.negatives:
                order = mix64(np.arange(count, dtype=np.uint64), int(value))
                chosen = np.sort(np.argsort(order, kind="stable")[: self.negatives]).tolist()
            choices.append(Choice(positive, tuple(chosen)))
        return choices


def _own_texts(
    examples: Sequence[TokenExample], choices: Sequence[Choice], width: int
) -> tuple[list[I32], npt.NDArray[np.int64]]:
    """Distinct token arrays and the (b, 2+K) places of query, positive and negatives among them."""
    texts: list[I32] = []
    places: dict[bytes, int] = {}

    def place_of(tokens: I32) -> int:
        key = tokens.tobytes()
        if key not in places:
            places[key] = len(texts)
            texts.append(tokens)
        return places[key]

    index = np.zeros((len(examples), 2 + width), dtype=np.int64)
    for row, (example, choice) in enumerate(zip(examples, choices, strict=True)):
        index[row, 0] = place_of(example.query)
        index[row, 1:] = place_of(example.positives[choice.positive])
        for column, number in enumerate(choice.negatives):
            index[row, 2 + column] = place_of(example.negatives[number])
    return texts, index


def _padded(lists: Sequence[U64]) -> U64:
    """(B, P) from lists of at least one each, shorter ones padded with their first entry."""
    width = max(len(values) for values in lists)
    return np.stack([np.concatenate([values, np.repeat(values[:1], width - len(values))]) for values in lists])


def _signed(values: U64) -> torch.Tensor:
    """The same bits as int64, which torch compares on every device."""
    return torch.from_numpy(np.ascontiguousarray(values).view(np.int64))
