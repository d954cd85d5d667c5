"""The model card reads as the hub and people expect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml

from boom_ray.merging.product.card import CardFacts, CardMember, model_card

FACTS = CardFacts(
    name="quickstart",
    base="Qwen/Qwen3-0.6B",
    recipe={"method": "task_arithmetic", "weights": [0.4, 0.6], "parameters": {"scale": 1.5}, "base": "base"},
    members=[
        CardMember("bag0-80", "80 % of every dataset", 8000, 31, 0.4),
        CardMember("bag1-100", "100 % of every dataset", 10000, 39, 0.6),
    ],
    datasets={"docs": 6000, "code|odd": 4000},
    prompts={"query": "Instruct: x\nQuery: ", "document": ""},
    scores=[{"model": "base", "in-domain": 61.234, "out-of-domain": 50.0}, {"model": "merged", "in-domain": "—"}],
    lineage={"merge": "abc"},
)


def test_front_matter_is_what_the_hub_reads() -> None:
    head = yaml.safe_load(model_card(FACTS).split("---")[1])
    assert head["library_name"] == "sentence-transformers"
    assert head["pipeline_tag"] == "sentence-similarity"
    assert head["base_model"] == "Qwen/Qwen3-0.6B"
    assert "base_model" not in yaml.safe_load(model_card(replace(FACTS, base="/a/b/c")).split("---")[1])


def test_tables_hold_the_facts() -> None:
    card = model_card(FACTS)
    for line in (
        "| bag0-80 | 80 % of every dataset | 8,000 | 31 | 0.4 |",
        "| code\\|odd | 4,000 |",
        "| base | 61.23 | 50.00 |",
        "| merge | `abc` |",
        "| query | `'Instruct: x\\nQuery: '` |",
    ):
        assert line in card
    assert "`task_arithmetic` (scale 1.5, on the differences from the base)" in card
    assert 'SentenceTransformer("path/to/this/folder")' in card


def test_what_is_not_known_is_left_out() -> None:
    card = model_card(replace(FACTS, scores=(), datasets={}, lineage={}, prompts={}))
    assert "## Members" in card
    for title in ("## Scores", "## Training data", "## Lineage", "prompt_name"):
        assert title not in card


def foreign(*paths: str, **changes: Any) -> str:
    members = [CardMember(path.rsplit("/", 1)[-1], "", 0, 0, 0.5, path, "0123456789abcdef") for path in paths]
    recipe = {
        "method": "ties",
        "weights": [0.5, 0.5],
        "parameters": {"density": 0.2, "scale": 1.0, "scope": "tensor", "normalize": True},
        "base": "base",
        "rules": [{"tensors": ["embeddings.*"], "layers": [0, 3], "weights": [1.0, 0.0], "parameters": {"density": 1}}],
        "merge_dtype": "auto",
        "output_dtype": "members",
    }
    return model_card(replace(FACTS, members=members, recipe=recipe, datasets={}, **changes))


def test_members_from_elsewhere_are_told_by_where_they_came_from() -> None:
    card = foreign("/models/one", "/models/two", found={"scale": 0.81234, "why": "learned"})
    for text in (
        "the weights of 2 models, fine-tuned from `Qwen/Qwen3-0.6B`, were merged by `ties` (density 0.2, scale 1, "
        "scope tensor, normalize true, on the differences from the base)",
        "| one | `/models/one` | `0123456789ab` | — | 0.5 |",
        "| tensors embeddings.* in layers 0-3 | density 1, weights 1, 0 |",
        "| scale | 0.8123 |",
        "| why | learned |",
    ):
        assert text in card
    assert "bag" not in card and "arXiv 2602.05787" not in card, "no word of a training that did not happen"
    assert "fine-tuned" not in foreign("/models/one", "/models/two", base="")


def test_a_merge_of_hub_models_names_them_in_the_front_matter() -> None:
    head = yaml.safe_load(foreign("a/one", "b/two").split("---")[1])
    assert head["base_model"] == ["a/one", "b/two"] and head["base_model_relation"] == "merge"
    head = yaml.safe_load(foreign("a/one", "/models/two").split("---")[1])
    assert head["base_model"] == "Qwen/Qwen3-0.6B" and "base_model_relation" not in head


def test_data_that_was_looked_at_is_told_with_its_numbers() -> None:
    seen = {
        "corpus": {"key": "k", "fingerprint": "f00d", "examples": {"docs": 6000, "code": 4000}},
        "examples": {"docs": 512, "code": 500},
        "settings": {
            "sample": {"examples": 1012, "seed": 3, "in_batch": {"docs": True}},
            "loss": {"temperature": 0.05, "precision": "float32"},
        },
    }
    card = model_card(replace(FACTS, looked_at=seen))
    for text in (
        "## Data looked at",
        "looked at 1,012 examples of the corpus `f00d` (examples 1012, seed 3, temperature 0.05, precision float32)",
        "| docs | 512 | 6,000 |",
    ):
        assert text in card
    assert "Data looked at" not in model_card(FACTS)
