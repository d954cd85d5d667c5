"""Fifty steps on the same batches: our loop and sentence-transformers' trainer give the same curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from torch.utils.data import BatchSampler, SequentialSampler

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.plan import Step
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.config import ModelConfig, TrainingConfig
from boom_ray.corpus.schema import TOKENS
from boom_ray.hashing import text_key
from boom_ray.model.encoder import load_encoder
from boom_ray.model.losses.policy import Policy
from boom_ray.model.steps import StepSettings, embed
from boom_ray.training.group import Group
from boom_ray.training.loop import Listeners, Loop, Plan
from tests.evaluation.task_folders import sentences
from tests.tiny_model import WORDS, make_tiny_model
from tests.token_corpus import write_rows

pytestmark = pytest.mark.slow
STEPS, BATCH = 50, 12
ALL = ("query_to_passage", "passage_to_query", "query_to_query", "passage_to_passage")


def make_rows() -> list[tuple[str, str, str]]:
    """(query, positive, negative) texts of many lengths, all different."""
    words = WORDS.split()
    texts = [text for text, _ in sentences(STEPS * BATCH)]
    return [
        (
            f"{words[n % 97]} {n} {text}",
            f"{text} {' '.join(words[n % 50 : n % 50 + n % 13])} {n}",
            f"{words[n % 31]} {n}",
        )
        for n, text in enumerate(texts)
    ]


class Marks(losses.MultipleNegativesRankingLoss):
    """Keeps the loss of every step."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self.seen: list[float] = []

    def forward(self, *arguments) -> torch.Tensor:
        found = super().forward(*arguments)
        self.seen.append(found.item())
        return found


def train_theirs(folder: Path, rows, out: Path, directions) -> tuple[list[float], SentenceTransformer]:
    model = SentenceTransformer(str(folder), device="cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    names = {"passage": "doc"}
    theirs = tuple("_".join(names.get(word, word) for word in one.split("_")) for one in directions)
    loss = Marks(model, scale=10.0, directions=theirs)
    arguments = SentenceTransformerTrainingArguments(
        str(out),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_steps=5,
        lr_scheduler_type="linear",
        use_cpu=True,
        batch_sampler=lambda dataset, batch_size, drop_last, *_, **__: BatchSampler(
            SequentialSampler(dataset), batch_size, drop_last
        ),
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    data = Dataset.from_list([dict(zip(("anchor", "positive", "negative"), row, strict=True)) for row in rows])
    SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss).train()
    return loss.seen, model


def train_ours(folder: Path, rows, out: Path, directions) -> tuple[list[float], Loop]:
    tokenizer = SentenceTransformer(str(folder), device="cpu").tokenizer
    made = [
        {
            "id": number.to_bytes(16, "big"),  # rows are sorted by it
            **{"query": tokenizer(query).input_ids, "query_key": text_key(query), "label_key": None, "score": None},
            **{"positives": [tokenizer(positive).input_ids], "positive_keys": [text_key(positive)]},
            **{"negatives": [tokenizer(negative).input_ids], "negative_keys": [text_key(negative)]},
            **{"positive_scores": None, "negative_scores": None},
        }
        for number, (query, positive, negative) in enumerate(rows)
    ]
    assert set(made[0]) == set(TOKENS.names)
    corpus = {"a": TokenDataset([write_rows(out / "a.arrow", made)])}
    reader = BatchReader(corpus, 1, 0, 0, 1)
    policy = Policy("infonce", 0.1, True, directions, "joint", (), None, 1.0, 0.0)

    def batch(step: int):
        return reader.read(Step("a", 0, np.arange(step * BATCH, (step + 1) * BATCH)))

    config = TrainingConfig(
        batch_size=BATCH,
        negatives=1,
        learning_rate=1e-3,
        weight_decay=0.01,
        warmup_ratio=0.1,
        precision="float32",
        log_every=1,
        micro_batch_tokens=128,
    )
    loop = Loop(load_encoder(folder, ModelConfig(), 0.0), Plan(STEPS, batch, {"a": policy}, 64), config, 0, Group(0, 1))
    seen: list[float] = []
    loop.run(Listeners(lambda done, figures: seen.append(figures["loss"]), lambda done: None))
    return seen, loop


@pytest.mark.parametrize("directions", [ALL[:1], ALL], ids=["one-direction", "all-directions"])
def test_fifty_steps_give_the_same_losses_and_the_same_model(tmp_path, monkeypatch, directions):
    """Float32, the same optimiser, warm-up and decay; their warm-up begins at rate 0, so ours is made to as well."""
    from boom_ray.training import course as module

    folder = make_tiny_model(tmp_path / "base")
    monkeypatch.setattr(
        module, "learning_rate", lambda update, total, config: 1e-3 * min(update / 5, (total - update) / (total - 5))
    )
    rows = make_rows()
    theirs, model = train_theirs(folder, rows, tmp_path / "out", directions)
    ours, loop = train_ours(folder, rows, tmp_path, directions)
    assert len(ours) == len(theirs) == STEPS
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    assert np.mean(ours[-10:]) < 0.95 * np.mean(ours[:10])
    ids = [np.array(model.tokenizer(row[0]).input_ids, dtype=np.int32) for row in rows[:20]]
    vectors = embed(loop.encoder.eval(), ids, StepSettings(pad_id=loop.encoder.pad_id)).numpy()
    np.testing.assert_allclose(vectors, model.encode([row[0] for row in rows[:20]]), atol=2e-3)
