"""The model card reads as the hub and people expect."""

from __future__ import annotations

from dataclasses import replace

import yaml

from boom_ray.merging.card import CardFacts, CardMember, model_card

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
