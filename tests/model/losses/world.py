"""Steps of texts for tests of losses, sentence-transformers as an oracle, and InfoNCE written out in loops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn

from boom_ray.config.loss import MASKS
from boom_ray.hashing import text_key
from boom_ray.model.losses import Facts, Policy

DIRECTION_NAMES = {
    "query_to_passage": "query_to_doc",
    "passage_to_query": "doc_to_query",
    "query_to_query": "query_to_query",
    "passage_to_passage": "doc_to_doc",
}


def policy(**fields) -> Policy:
    usual = {
        "kind": "infonce",
        "temperature": 0.05,
        "in_batch": True,
        "directions": ("query_to_passage",),
        "partition": "joint",
        "mask": MASKS,
        "margin": None,
        "teacher_temperature": 1.0,
        "contrastive_weight": 0.0,
    }
    return Policy(**(usual | fields))


def random_vectors(count: int, negatives: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    """(B, 2+K, d) float32, of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2 + negatives, size, generator=generator) * 3


def unit(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (B, d) and passages (B, 1+K, d) of length 1 in float64."""
    vectors = torch.nn.functional.normalize(vectors.double(), dim=-1)
    return vectors[:, 0].clone(), vectors[:, 1:].clone()


@dataclass(frozen=True)
class Texts:
    """A step by its texts; passages[i][0] is the positive, None an absent negative."""

    queries: list[str]
    known: list[list[str]]
    passages: list[list[str | None]]
    labels: list[str] | None = None

    def facts(self, scores=None, teacher=None) -> Facts:
        width = max(map(len, self.known))
        padded = [one + one[:1] * (width - len(one)) for one in self.known]
        return Facts(
            present=torch.tensor([[text is not None for text in row] for row in self.passages]),
            query_keys=keys(self.queries),
            known_positives=torch.stack([keys(row) for row in padded]),
            candidate_keys=torch.stack([keys([text or "" for text in row]) for row in self.passages]),
            labels=None if self.labels is None else keys(self.labels),
            scores=None if scores is None else torch.tensor(scores),
            teacher=None if teacher is None else torch.tensor(teacher),
        )


def keys(texts: list[str]) -> torch.Tensor:
    return torch.tensor([text_key(text) - 2**63 for text in texts])


def distinct(count: int, negatives: int) -> Texts:
    """A step without false negatives."""
    passages = [[f"p{i}"] + [f"n{i}.{k}" for k in range(negatives)] for i in range(count)]
    return Texts([f"q{i}" for i in range(count)], [[f"p{i}"] for i in range(count)], passages)


@st.composite
def steps(draw, most: int = 5) -> Texts:
    """Steps with few different texts, so that there are false negatives of all kinds."""
    count, negatives = draw(st.integers(1, most)), draw(st.integers(0, 2))
    word = st.sampled_from("abcdefgh")
    known = [draw(st.lists(word, min_size=1, max_size=3)) for _ in range(count)]
    passages = [[draw(st.sampled_from(own))] + [draw(st.none() | word) for _ in range(negatives)] for own in known]
    labels = draw(st.none() | st.lists(st.sampled_from("xyz"), min_size=count, max_size=count))
    return Texts([draw(word) for _ in range(count)], known, passages, labels)


def written_out(vectors: torch.Tensor, texts: Texts, policy: Policy) -> float:
    """InfoNCE of a step by its definition: strings, loops and math.exp."""
    queries, passages = unit(vectors)
    total = 0.0
    for i in range(len(queries)):
        pair = float(queries[i] @ passages[i, 0])
        sums = []
        for direction in policy.directions:
            anchor = queries[i] if direction.startswith("query") else passages[i, 0]
            cosines = [
                float(anchor @ vector)
                for vector, told in _candidates(queries, passages, texts, policy, i, direction)
                if told == "pair" or policy.margin is None or float(anchor @ vector) <= pair + policy.margin
            ]
            sums.append(sum(math.exp(cosine / policy.temperature) for cosine in cosines))
        whole = sum(sums) if policy.partition == "joint" else math.prod(sums) ** (1 / len(sums))
        total += math.log(whole) - pair / policy.temperature
    return total / len(queries)


def _candidates(queries, passages, texts, policy, i, direction):
    """(vector, "pair" or "negative") of everything that row i is compared with."""
    for j in range(len(queries)):
        if direction.endswith("to_query"):
            if j == i and direction == "passage_to_query":
                yield queries[j], "pair"
            elif j != i and not _hides_query(texts, policy.mask, i, j):
                yield queries[j], "negative"
            continue
        if (j != i and not policy.in_batch) or (j == i and direction == "passage_to_passage"):
            continue
        for k, text in enumerate(texts.passages[j]):
            if (j, k) == (i, 0):
                yield passages[j, k], "pair"
            elif text is not None and not _hides_passage(texts, policy.mask, i, j, k):
                yield passages[j, k], "negative"


def _hides_passage(texts: Texts, mask, i: int, j: int, k: int) -> bool:
    text = texts.passages[j][k]
    return (
        ("positives" in mask and text in texts.known[i])
        or ("duplicates" in mask and text == texts.queries[i])
        or ("labels" in mask and texts.labels is not None and k == 0 and texts.labels[i] == texts.labels[j])
    )


def _hides_query(texts: Texts, mask, i: int, j: int) -> bool:
    related = texts.queries[j] in texts.known[i] or {texts.queries[i], texts.passages[i][0]} & set(texts.known[j])
    return (
        ("positives" in mask and bool(related))
        or ("duplicates" in mask and texts.queries[i] == texts.queries[j])
        or ("labels" in mask and texts.labels is not None and texts.labels[i] == texts.labels[j])
    )


class Given(nn.Module):
    """A model whose embeddings are its inputs."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def __getitem__(self, number: int) -> Given:
        return self  # the only module

    def get_embedding_dimension(self) -> int:
        return self.size


def columns(vectors: torch.Tensor) -> list[torch.Tensor]:
    """(B, d) of query, positive and each negative, as sentence-transformers' losses take them."""
    return [vectors[:, column] for column in range(vectors.shape[1])]
