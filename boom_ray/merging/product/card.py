"""The model card: what the merged model is, from what it was made, how it scores and how it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boom_ray.merging.methods.registry import METHODS

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class CardMember:
    """One row of the members' table.

    Attributes:
        name: name of the bag.
        bag: its rule in words, e.g. ``80 % of every dataset``; empty for a member that was not trained here.
        examples: examples in the bag; 0 when unknown.
        steps: training steps.
        weight: weight in the merge, in [0, 1].
        path: where a member came from that was not trained here.
        fingerprint: hash of its weights.
    """

    name: str
    bag: str
    examples: int
    steps: int
    weight: float
    path: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class CardFacts:
    """All that a model card says.

    Attributes:
        name: name of the run.
        base: model that all members started from, as configured; empty when unknown.
        recipe: spec of the ``merge`` artifact.
        members: rows of the members' table, in the order of the merge.
        datasets: name to number of training examples.
        prompts: the model's prompts by name.
        scores: rows of one table: ``model`` first, then one key per mean; in percent or as text. The first row names
            the columns; a row without one of them shows a dash.
        lineage: what to name the origin by: artifact keys, MLflow run, versions.
        license: license identifier of the hub, when one applies.
        found: what the method found before the merge: learned weights, scores of soups.
        looked_at: training data that the method looked at before the merge: ``corpus`` with ``fingerprint`` and
            ``examples`` by dataset, ``examples`` of the sample by dataset, ``settings`` by name; empty for none.
    """

    name: str
    base: str
    recipe: Mapping[str, Any]
    members: Sequence[CardMember]
    datasets: Mapping[str, int]
    prompts: Mapping[str, str] = field(default_factory=dict)
    scores: Sequence[Mapping[str, str | float]] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    license: str | None = None
    found: Mapping[str, str | float] = field(default_factory=dict)
    looked_at: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether the members were trained elsewhere."""
        return any(member.path for member in self.members)


def model_card(facts: CardFacts) -> str:
    """README.md of the merged model: YAML front matter as the Hugging Face hub reads it, then Markdown."""
    parts = [
        f"---\n{_front_matter(facts)}\n---",
        f"# {facts.name}",
        _summary(facts),
        _loading(facts.prompts),
        *_section("Members", _members(facts)),
        *_section("Merge", _merge(facts)),
        *_section("Data looked at", _looked_at(facts.looked_at)),
        *_section("Scores", _scores(facts.scores)),
        *_section("Training data", _table(("dataset", "examples"), [*facts.datasets.items()])),
        *_section("Lineage", _table(("what", "value"), [(key, f"`{value}`") for key, value in facts.lineage.items()])),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    sources = [member.path for member in facts.members] if facts.is_foreign else []
    from_hub = bool(sources) and all(HUB_NAME.fullmatch(path) for path in sources)
    base = facts.base if HUB_NAME.fullmatch(facts.base) else None
    extra: dict[str, Any] = {"base_model_relation": "merge"} if from_hub else {}
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "sentence-similarity", "feature-extraction", "merge", "boom"],
        base_model=sources if from_hub else base,
        license=facts.license,
        **extra,
    )
    return str(data.to_yaml()).strip()


def _summary(facts: CardFacts) -> str:
    method = METHODS[str(facts.recipe["method"])]
    details = [f"{name} {_number(value)}" for name, value in facts.recipe["parameters"].items()]
    if facts.recipe["base"] == "base":
        details.append("on the differences from the base")
    inside = f" ({', '.join(details)})" if details else ""
    how = f"`{method.name}`{inside}. {method.summary} Source: {method.source}."
    if facts.is_foreign:
        of = f", fine-tuned from `{facts.base}`," if facts.base else ""
        return f"A text-embedding model: the weights of {len(facts.members)} models{of} were merged by {how}"
    return (
        f"A text-embedding model made by Bagging-based rObust mOdel Merging (BOOM, "
        f"[arXiv 2602.05787](https://arxiv.org/abs/2602.05787)): {len(facts.members)} models were trained from "
        f"`{facts.base}`, each on its own bag of the training data, and their weights were merged by {how}"
    )


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()


def _merge(facts: CardFacts) -> str:
    """Formula, types, rules and what was found before."""
    method, recipe = METHODS[str(facts.recipe["method"])], facts.recipe
    rows = [("formula", method.formula)]
    rows += [(name.replace("_", " "), str(recipe[name])) for name in ("merge_dtype", "output_dtype") if name in recipe]
    for rule in recipe.get("rules", ()):
        layers = f" in layers {rule['layers'][0]}-{rule['layers'][1]}" if rule["layers"] else ""
        changes = [f"{name} {_number(value)}" for name, value in rule["parameters"].items()]
        if rule["weights"]:
            changes.append(f"weights {', '.join(f'{weight:.4g}' for weight in rule['weights'])}")
        rows.append((f"tensors {', '.join(rule['tensors'])}{layers}", ", ".join(changes)))
    rows += [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in facts.found.items()]
    return _table(("what", "value"), rows)


def _looked_at(seen: Mapping[str, Any]) -> str:
    """The sample of the corpus that decided something about the merge."""
    if not seen:
        return ""
    corpus, counts = seen["corpus"], seen["examples"]
    settings = [
        f"{name.replace('_', ' ')} {_number(value)}"
        for section in seen["settings"].values()
        for name, value in section.items()
        if not isinstance(value, Mapping)
    ]
    text = (
        f"Before the merge the method looked at {sum(counts.values()):,} examples of the corpus "
        f"`{corpus['fingerprint']}` ({', '.join(settings)})."
    )
    rows = [(name, counts.get(name, 0), size) for name, size in corpus["examples"].items()]
    return f"{text}\n\n{_table(('dataset', 'examples looked at', 'examples in the corpus'), rows)}"


def _loading(prompts: Mapping[str, str]) -> str:
    code = (
        "```python\nfrom sentence_transformers import SentenceTransformer\n"
        'model = SentenceTransformer("path/to/this/folder")\n'
        'vectors = model.encode(["a text", "another text"])\n```'
    )
    named = [(name, f"`{prompt!r}`") for name, prompt in prompts.items() if prompt]
    if not named:
        return code
    return (
        f"{code}\n\nPrompts, chosen with `prompt_name=`:\n\n{_table(('prompt_name', 'text before the input'), named)}"
    )


def _section(title: str, body: str) -> list[str]:
    return [f"## {title}", body] if body else []


def _members(facts: CardFacts) -> str:
    if facts.is_foreign:
        origins = [
            (one.name, f"`{one.path}`", f"`{one.fingerprint[:12]}`", one.examples or "—", f"{one.weight:.4g}")
            for one in facts.members
        ]
        return _table(("member", "from", "weights' hash", "examples", "merge weight"), origins)
    rows = [(one.name, one.bag, one.examples, one.steps, f"{one.weight:.4g}") for one in facts.members]
    return _table(("member", "bag", "examples", "steps", "merge weight"), rows)


def _scores(scores: Sequence[Mapping[str, str | float]]) -> str:
    if not scores:
        return ""
    titles = tuple(scores[0])
    return _table(titles, [[row.get(title, "—") for title in titles] for row in scores])


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers are right-aligned. Empty without rows."""
    if not rows:
        return ""
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(titles))]
    lines = [
        [_escape(title) for title in titles],
        ["---:" if right else "---" for right in numeric],
        *([_cell(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return _escape(str(value))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
