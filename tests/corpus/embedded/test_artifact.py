from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from boom_ray.config import EmbeddedConfig
from boom_ray.corpus.embedded import embedded_artifact
from boom_ray.corpus.embedded.choose import sketch
from boom_ray.corpus.embedded.sources import Package, find_package
from boom_ray.errors import DataError
from boom_ray.store import Store

CONFIG = EmbeddedConfig(
    in_domain=("alpha", "beta"), out_of_domain=("gamma",), train_examples=100, test_queries=20, test_corpus=30
)


def rows(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(root: Path, *fields: str):
    """All values of the fields in all JSON lines below a folder."""
    found = []
    for path in root.rglob("*.jsonl"):
        for row in rows(path):
            for field in fields:
                value = row.get(field, [])
                found += value if isinstance(value, list) else [value]
    return found


@pytest.fixture(scope="module")
def artifact(packages, tmp_path_factory):
    return embedded_artifact(Store(tmp_path_factory.mktemp("store")), CONFIG, find=packages.get)


def test_every_set_is_there_and_counted(artifact):
    assert all(name.startswith("tests/dev-") for name in artifact.figures["left_out"])  # the packages are too small
    assert artifact.figures["packages"] == {"alpha": "1.0", "beta": "1.0", "gamma": "1.0"}
    assert artifact.figures["docstrings"] == 3 * 6 * 20
    root = artifact.local()
    assert sorted(path.stem for path in (root / "train").iterdir()) == [
        "code", "comments", "docs", "errors", "parameters", "topics",
    ]  # fmt: skip
    assert sorted(path.name for path in (root / "tests").iterdir() if not path.name.startswith("dev-")) == [
        "code", "code-reranking", "comments", "docs", "errors", "new-docs", "new-errors", "new-topics", "parameters",
        "relatedness", "sentence-pairs", "topics",
    ]  # fmt: skip
    for name, count in artifact.figures["rows"].items():
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) - name.endswith(".tsv") == count


def test_no_text_of_a_test_is_trained_on(artifact):
    root = artifact.local()
    fields = ("query", "pos", "neg", "text", "sentence1", "sentence2", "positive", "negative")
    trained, tested = texts(root / "train", *fields), texts(root / "tests", *fields)
    assert len(trained) > 500
    assert len(tested) > 300
    assert not {sketch(text) for text in trained} & {sketch(text) for text in tested}


def test_packages_never_trained_on_are_not_in_training_or_in_domain_tests(artifact):
    root = artifact.local()
    code = texts(root / "train", "pos") + [row["text"] for row in rows(root / "tests" / "topics" / "test.jsonl")]
    labels = {row["label_text"] for row in rows(root / "train" / "topics.jsonl")}
    assert len(code) > 200
    assert {label.split(".")[0] for label in labels} == {"alpha", "beta"}
    assert {row["label_text"].split(".")[0] for row in rows(root / "tests" / "new-topics" / "test.jsonl")} == {"gamma"}


def test_probe_texts_are_neither_trained_on_nor_tested(artifact):
    root = artifact.local()
    for name in ("errors", "new-errors"):
        probe = {row["text"] for row in rows(root / "tests" / name / "train.jsonl")}
        assert probe
        assert not probe & {row["text"] for row in rows(root / "tests" / name / "test.jsonl")}
        assert not probe & {row["text"] for row in rows(root / "train" / "errors.jsonl")}


def test_in_domain_labels_are_trained_on(artifact):
    root = artifact.local()
    for name in ("errors", "topics", "parameters"):
        tested = {row["label_text"] for row in rows(root / "tests" / name / "test.jsonl")}
        assert len(tested) >= 2
        assert tested <= {row["label_text"] for row in rows(root / "train" / f"{name}.jsonl")}


def test_the_same_packages_elsewhere_give_the_same_bytes(artifact, packages, tmp_path):
    moved = {}
    for name, package in packages.items():
        package.root.replace(package.root.with_name(f"{name}-away"))
        moved[name] = Package(name, package.version, package.root.with_name(f"{name}-away"))
    try:
        again = embedded_artifact(Store(tmp_path / "store"), CONFIG, find=moved.get)
    finally:
        for name, package in packages.items():
            moved[name].root.replace(package.root)
    assert again.key == artifact.key
    for name in artifact.files:
        assert (again.local() / name).read_bytes() == (artifact.local() / name).read_bytes()


def test_version_and_configuration_decide_the_key(artifact, packages, tmp_path):
    store = Store(tmp_path)
    newer = {name: Package(name, "2.0", package.root) for name, package in packages.items()}
    keys = {
        artifact.key,
        embedded_artifact(store, CONFIG, find=newer.get).key,
        embedded_artifact(store, CONFIG.model_copy(update={"seed": 1}), find=packages.get).key,
    }
    assert len(keys) == 3


def test_missing_packages_are_named(packages, tmp_path):
    config = CONFIG.model_copy(update={"in_domain": ("alpha", "beta", "delta")})
    found = embedded_artifact(Store(tmp_path), config, find=packages.get)
    assert found.figures["missing_packages"] == ["delta"]


def test_a_group_without_packages_is_an_error(packages, tmp_path):
    config = CONFIG.model_copy(update={"out_of_domain": ("delta", "epsilon")})
    with pytest.raises(DataError, match=r"out_of_domain names delta, epsilon, and none is installed"):
        embedded_artifact(Store(tmp_path), config, find=packages.get)


def test_packages_without_text_are_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "mod.py").write_text("x = 1\n" * 200)
    empty = {name: Package(name, "1", tmp_path / "empty") for name in ("alpha", "beta", "gamma")}
    with pytest.raises(DataError, match="give no training example"):
        embedded_artifact(Store(tmp_path / "store"), CONFIG, find=empty.get)


def test_a_package_in_both_groups_is_refused():
    with pytest.raises(ValidationError, match="in both: numpy"):
        EmbeddedConfig(in_domain=("numpy", "scipy"), out_of_domain=("numpy",))


def test_real_text_of_a_part_of_the_standard_library(tmp_path):
    stdlib = find_package("stdlib")
    assert stdlib is not None
    parts = {name: Package(name, stdlib.version, stdlib.root / name) for name in ("email", "asyncio", "http", "xml")}
    config = EmbeddedConfig(
        in_domain=("email", "asyncio"), out_of_domain=("http", "xml"), test_queries=20, test_corpus=40
    )
    found = embedded_artifact(Store(tmp_path), config, find=parts.get)
    docs = rows(found.local() / "train" / "docs.jsonl")
    assert len(docs) > 100
    assert "tests/new-docs" not in found.figures["left_out"]
    for row in docs:
        assert row["query"] not in row["pos"][0]
        assert ">>>" not in row["pos"][0]
        assert not set(row["pos"]) & set(row["neg"])
