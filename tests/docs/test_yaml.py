"""Every YAML in the documentation and in conf/ loads, and docs/training.md names every field of training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import (
    EvaluateJobConfig,
    LoraConfig,
    LossConfig,
    MergeJobConfig,
    ModelConfig,
    RunConfig,
    StudyConfig,
    SweepConfig,
    TrainingConfig,
    UpdateConfig,
    load_config,
)
from boom_ray.config.section import Section
from boom_ray.config.training import AverageLastConfig, MatryoshkaConfig, ProgressScoresConfig, ResourcesConfig
from boom_ray.errors import ConfigError
from boom_ray.model.losses.settings import GRADED_TEMPERATURE
from boom_ray.training.memory import CPU_TOKENS, GPU_TOKENS, ROOM
from boom_ray.training.meter import PARTS
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
MIXED = (ROOT / "conf" / "mixed_losses.yaml").read_text(encoding="utf-8")
NO_CONFIG = {"kuberay"}  # folders of conf/ with files for other programs
BASE: dict[str, Any] = {
    "name": "base",
    "corpus": {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "retrieval"}]},
    "model": {"query_template": "{task} {text}", "passage_template": "{task} {text}"},
    "bags": {"ratios": [0.5, 0.8, 1.0]},  # three members, as docs/merging.md has
    "evaluation": {
        "in_domain": [{"name": "STSBenchmark"}],
        "selection": [{"name": "dev", "path": "dev", "type": "sts"}],
    },
}
SECTIONS: dict[type[Section], str] = {
    TrainingConfig: "training",
    ResourcesConfig: "training.resources",
    MatryoshkaConfig: "training.matryoshka",
    AverageLastConfig: "training.average_last",
    ProgressScoresConfig: "training.scores",
    ModelConfig: "model",
    LoraConfig: "model.lora",
    LossConfig: "corpus.datasets.loss",
}


def blocks(text: str, kind: str = "yaml") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.S | re.M)


BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8")))
]
FILES = sorted(path for path in (ROOT / "conf").rglob("*.yaml") if path.parent.name not in NO_CONFIG)


def schema_of(keys: Set[str]) -> type[Section]:
    """What a configuration with these keys is of."""
    told: dict[str, type[Section]] = {
        "members": MergeJobConfig,
        "models": EvaluateJobConfig,
        "results": EvaluateJobConfig,
        "current": UpdateConfig,
        "sweep": SweepConfig,
        "study": StudyConfig,
    }
    return next((schema for key, schema in told.items() if key in keys), RunConfig)


def load(block: str, folder: Path) -> Section:
    """A whole configuration as it is, anything less over a small one."""
    (folder / "block.yaml").write_text(block, encoding="utf-8")
    keys = yaml.safe_load(block).keys()
    schema = schema_of(keys)
    if schema in {MergeJobConfig, EvaluateJobConfig, UpdateConfig} or {"name", "corpus"} <= keys:
        return load_config(schema, folder / "block.yaml")
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    (folder / "run.yaml").write_text("extends: [base.yaml, block.yaml]", encoding="utf-8")
    return load_config(schema, folder / "run.yaml")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_documentation_loads(block: str, tmp_path: Path) -> None:
    load(block, tmp_path)


def test_there_are_blocks_to_load() -> None:
    pages = {str(one.id).rsplit("-", 1)[0] for one in BLOCKS}
    assert pages >= {"training", "merging", "README"}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```(?:yaml|yml)\b", text, re.M)) == len(blocks(text)), f"{page.name} hides a block"


@pytest.mark.parametrize(
    ("block", "where"),
    [
        ("training: {learning_rat: 1.0e-5}", r"training\.learning_rat: unknown key; did you mean learning_rate\?"),
        ("training: {decay: steps}", r"training\.decay: Input should be 'linear'"),
        ("training: {resources: {workers: [4, 2]}}", r"training\.resources: workers must be"),
        ("model: {lora: {rank: 0}}", r"model\.lora\.rank: "),
        (
            "corpus: {datasets: [{name: a, source: a, task_type: sts, loss: {kind: cosent, margin: 0.1}}]}",
            r"corpus\.datasets\.0\.loss\.margin: has no effect with kind cosent",
        ),
        ("name: x\ncorpus: {datasets: []}", r"corpus\.datasets: "),
        ("name: x\nmembers: [{path: /a, weight: 1}]", r"members\.0\.weight: unknown key"),
        ("merge: {method: tys}", r"there is no method tys"),
    ],
)
def test_a_wrong_block_would_be_noticed(block: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=where):
        load(block, tmp_path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "conf").as_posix())
def test_a_file_of_conf_loads(path: Path, tmp_path: Path) -> None:
    keys = yaml.safe_load(path.read_text(encoding="utf-8")).keys()
    if "name" in keys:  # a whole one, perhaps with others that it extends
        load_config(SweepConfig if path.parent.name == "sweeps" else schema_of(keys), path)
    else:
        load(path.read_text(encoding="utf-8"), tmp_path)


def test_the_variants_in_the_comments_of_mixed_losses_load(tmp_path: Path) -> None:
    adapted, count = re.subn(r"^  # (lora: \{.*\})$", r"  \1", MIXED, flags=re.M)
    assert count == 1
    found = load(adapted, tmp_path)
    assert isinstance(found, RunConfig) and found.model.lora is not None
    (overrides,) = re.findall(r"python jobs/boom\.py my\.yaml (\S+)", MIXED)
    assert load_config(RunConfig, ROOT / "conf" / "mixed_losses.yaml", [overrides]).training.max_steps == 20


def test_mixed_losses_has_every_kind_of_data() -> None:
    config = load_config(RunConfig, ROOT / "conf" / "mixed_losses.yaml")
    datasets = config.corpus.datasets
    assert {one.loss.kind for one in datasets} == {"infonce", "cosent", "kl"}
    assert any(len(one.loss.directions) == 2 for one in datasets)
    assert any(one.loss.contrastive_weight for one in datasets)
    assert {one.task_type for one in datasets} >= {"retrieval", "sts", "classification"}
    assert config.training.matryoshka is not None
    assert {one.name for one in config.evaluation.all_tasks} >= set(config.training.scores.tasks)  # type: ignore[union-attr]


def keys_of(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a tree with the keys above it; lists do not count."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}{key}"
            yield from keys_of(inner, f"{path}{key}.")
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item, path)


def named(page: str) -> set[str]:
    """Keys in the YAML of a page, with those above them, and names in backticks in its text, with dots and without."""
    keys = {key for block in blocks(page) for key in keys_of(yaml.safe_load(block))}
    text = re.sub(r"^```.*?^```", "", page, flags=re.S | re.M)
    dotted = {name for span in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"[\w.]+", span)}
    return keys | dotted | {word for name in dotted for word in name.split(".")}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_page_names_every_field(section: type[Section]) -> None:
    found, place = named(TRAINING), SECTIONS[section]
    elsewhere = {name for other in SECTIONS if other is not section for name in other.model_fields}
    missing = [
        name
        for name in section.model_fields
        if f"{place}.{name}" not in found and (name in elsewhere or name not in found)
    ]
    assert not missing


def test_a_field_that_is_not_named_would_be_noticed() -> None:
    assert not {"training.max_leap", "max_leap"} & named(TRAINING.replace("max_leap", "leap"))
    assert named("`a.b=1` and\n```yaml\nc: {d: [{e: 1}]}\n```\n") == {"a.b", "a", "b", "1", "c", "c.d", "c.d.e"}


def test_figures_of_the_page_are_those_of_the_code() -> None:
    training = TrainingConfig()
    told = " ".join(TRAINING.split())
    for text in (
        f"null: {CPU_TOKENS:,} on CPUs, {GPU_TOKENS:,} on GPUs, fewer",
        f"takes {ROOM:.0%}".replace("%", " %"),
        f"null: `training.temperature`, {training.temperature:g}, for `cosent` and `angle` {GRADED_TEMPERATURE:g}",
        f"`{training.decay}` (the default)",
        f"`on_bad_step: {training.on_bad_step}`, the default",
        *(f"`time/{part}`" for part in PARTS),
    ):
        assert text in told, text


def test_the_python_of_the_page_runs(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    file = folder / "config_sentence_transformers.json"
    file.write_text('{"prompts": {"search": "Instruct: x\\nQuery: ", "document": ""}}', encoding="utf-8")
    (block,) = blocks(TRAINING, "python")
    names: dict[str, Any] = {"folder": str(folder)}
    with pytest.warns(UserWarning, match="Model prompts specified"):
        exec(compile(block, "docs/training.md", "exec"), names)
    assert names["queries"].shape == names["passages"].shape == (1, 32)
    assert set(names["wrapped"].model_prompts) == {"query", "document", "STS"}
    (cut,) = re.findall(r"`(SentenceTransformer\(folder, truncate_dim.*?)`", TRAINING)
    vectors = eval(cut.replace("128", "8"), names | {"texts": ["how do I sort a list?"]})
    assert vectors.shape == (1, 8)
    assert float((vectors**2).sum()) == pytest.approx(1.0, abs=1e-5)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TRAINING):
        place, _, title = target.partition("#")
        assert not place or (ROOT / "docs" / place).exists(), target
        titles = re.findall(r"^#+ (.*)$", TRAINING, re.M)
        assert not title or title in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}, target
