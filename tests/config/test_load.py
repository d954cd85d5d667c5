from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.config import ModelConfig, RunConfig, load_config, to_yaml
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError

DATASET = {"name": "a", "source": "a.jsonl", "task_type": "retrieval"}
MINIMAL: dict[str, Any] = {"name": "run", "corpus": {"datasets": [DATASET]}}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "run.yaml", MINIMAL)


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, path, overrides)
    return str(caught.value)


def test_overrides_replace_values_of_the_file_at_every_depth(file: Path) -> None:
    config = load_config(
        RunConfig,
        file,
        [
            "training.learning_rate=1e-5",
            "corpus.datasets.0.name=b",
            "corpus.datasets.0.columns.query=question",
            "bags.ratios=[0.5, 1.0]",
            "model.lora={rank: 8}",
            "bags.mixture.caps={b: 7}",
            "baseline=false",
            "store=/x=y",
        ],
    )
    assert config.training.learning_rate == 1e-5
    assert config.corpus.datasets[0].name == "b"
    assert config.corpus.datasets[0].source == "a.jsonl"
    assert config.corpus.datasets[0].columns.query == "question"
    assert config.bags.ratios == (0.5, 1.0)
    assert config.model.lora is not None and config.model.lora.rank == 8
    assert config.bags.mixture.caps == {"b": 7}
    assert config.baseline is False
    assert config.store == "/x=y"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainning.epochs=2", "trainning: unknown key; did you mean training?"),
        ("training.learning_rat=2", "training.learning_rat: unknown key; did you mean learning_rate?"),
        ("training.resources.worker=2", "training.resources.worker: unknown key; did you mean workers?"),
        ("corpus.datasets.0.sourse=x", "corpus.datasets.0.sourse: unknown key; did you mean source?"),
        ("corpus.datasets.0.columns.qery=x", "corpus.datasets.0.columns.qery: unknown key; did you mean query?"),
        ("evaluation.in_domain=[{name: t, pat: x}]", "evaluation.in_domain.0.pat: unknown key; did you mean path?"),
        ("model.lora={rnk: 8}", "model.lora.rnk: unknown key; did you mean rank?"),
        ("bags.members=[{name: m, ratio: 1, sed: 1}]", "bags.members.0.sed: unknown key; did you mean seed?"),
        (
            "learning_rate=1",
            "learning_rate: unknown key; did you mean bags.schedule.stages.learning_rate or training.learning_rate or "
            "merge.probe.learning_rate?",
        ),
        ("merge.zzz=1", "merge.zzz: unknown key; known keys: method, weights"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(file: Path, override: str, expected: str) -> None:
    text = fault(file, override)
    assert expected in text
    assert text.startswith(f"{file}:\n")
    assert len(text.splitlines()) == 2, "one fault, one line"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs=two", "training.epochs: Input should be a valid integer"),
        ("training=5", "training: Input should be a valid dictionary"),
        ("name=5", "name: Input should be a valid string (got 5)"),
        ("training.learning_rate=.inf", "training.learning_rate: Input should be a finite number"),
        ("training.learning_rate=.nan", "training.learning_rate: Input should be"),
        ("bags.ratios=0.5", "bags.ratios: Input should be a valid list (got 0.5)"),
        ("bags.ratios=[0.0, 1.0]", "bags: ratios must lie in (0, 1]; got 0.0"),
        ("bags.ratios=[1.5]", "bags: ratios must lie in (0, 1]; got 1.5"),
        ("bags.ratios=[]", "bags: give at least one ratio or one member"),
        ("bags.members=[{name: m, ratio: 1.5}]", "bags.members.0.ratio: Input should be less than or equal to 1"),
        ("bags.members=[{name: m}]", "bags.members.0: bag m: give either ratio or complement_of"),
        (
            "bags.members=[{name: m, ratio: 0.5}, {name: n, complement_of: o}]",
            "bags: bag n is the complement of o, which is none of ['m', 'n']",
        ),
        ("bags.members=[{name: m, ratio: 0.5}, {name: m, ratio: 1}]", "bags: bag names must be unique"),
        ("bags.members=[{name: m, ratio: 1}, {name: n, ratio: 1}]", "bags m and n are the same draw"),
        (
            "bags.members=[{name: m, ratio: 0.8}, {name: n, ratio: 0.8, seed: 0}]",
            "bags m and n are the same draw; give one another draw or seed",
        ),
        ("bags.members=[{name: core, ratio: 1}]", "the name core stands for something else"),
        ("bags.mixture.caps={a: -5}", "bags.mixture.caps.a: Input should be greater than or equal to 1"),
        ("training.resources.workers=300", "batch_size=256 gives no query to some of resources.workers=300"),
        ("training.resources.workers=[3,2]", "workers must be [least, most] with least <= most; got [3, 2]"),
        ("training.scores={tasks: [x]}", "training.scores.tasks names x, which is none of the evaluation tasks []"),
        ("training.scores={}", "training.scores needs tasks: give evaluation.selection or evaluation.in_domain"),
        ("training.matryoshka={dimensions: [64, 128]}", "matryoshka.dimensions must fall from the widest on"),
        (
            "corpus.datasets.0.passage_instruction=a passage",
            "dataset a has a passage_instruction, but model.passage_template has no {task}",
        ),
        (
            "corpus.datasets.0.instruction=find it",
            "dataset a has an instruction, but model.query_template has no {task}",
        ),
        ("bags.mixture.caps={other: 5}", "bags.mixture.caps names other, which is none of the datasets ['a']"),
        ("corpus.datasets=[]", "corpus.datasets: List should have at least 1 item"),
        ("corpus.datasets=[{name: a}]", "corpus.datasets.0.source: is required"),
        ("corpus.datasets.0.task_type=search", "corpus.datasets.0.task_type: Input should be 'retrieval', "),
        ("corpus.datasets.0.score_range=[1, 1]", "score_range must be [lowest, highest] with lowest < highest"),
        ("merge.weights=[0, 0]", "merge.weights: weights sum to zero; at least one must be positive"),
        ("merge.weights=[1, -1]", "merge.weights: weights must not be negative"),
        ("merge.weights=[1, 1, 1]", "merge.weights has 3 numbers for 2 bags"),
        ("model.query_template='q: {text} end'", "model: query_template must end with {text}"),
        ("model.passage_template='{text}{text}'", "model: passage_template must end with {text}, and have it once"),
        ("evaluation.in_domain=[{name: t, path: x}]", "evaluation.in_domain.0: task t: a folder needs its type"),
        (
            "evaluation.in_domain=[{name: t, path: x, type: sts, subsets: [en]}]",
            "evaluation.in_domain.0: task t: a folder has no subsets",
        ),
        ("evaluation.in_domain=[{name: t}, {name: t}]", "evaluation: task names must be unique; used twice: t"),
        (
            "evaluation={in_domain: [{name: t}], selection: [{name: t}]}",
            "evaluation: task names must be unique; used twice: t",
        ),
        (
            "evaluation={in_domain: [{name: t, path: a/x, type: sts}], selection: [{name: u, path: a//x/, type: sts}]}",
            "evaluation: selection task u is the data of the reported task t; take others",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(file: Path, override: str, expected: str) -> None:
    assert expected in fault(file, override)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("merge.weights=foo", "merge.weights: Input should be 'equal' or 'size' or a valid list (got 'foo')"),
        ("merge.weights=[.nan,1]", "merge.weights.0: Input should be a finite number (got nan)"),
        ("merge={method: ties, parameters: {scale: .nan}}", "merge.parameters.scale: Input should be a finite number"),
        (
            "merge={method: ties, parameters: {scale: [1]}}",
            "merge.parameters.scale: Input should be a valid boolean or a valid integer or a valid number or a valid "
            "string (got [1])",
        ),
        ("merge={parameters: {1: 2}}", "merge.parameters.1: Input should be a valid string (got 1)"),
        ("model.lora={targets: 5}", "model.lora.targets: Input should be a valid list or 'all-linear' (got 5)"),
        ("bags.mixture.caps={int: -5}", "bags.mixture.caps.int: Input should be greater than or equal to 1 (got -5)"),
    ],
)
def test_a_value_that_may_be_several_things_is_one_fault(file: Path, override: str, line: str) -> None:
    (found,) = fault(file, override).splitlines()[1:]
    assert line in found


def test_every_item_of_a_list_that_may_be_something_else_is_its_own_fault(file: Path) -> None:
    lines = fault(file, "merge.weights=[a,.nan,1]").splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["merge.weights.0", "merge.weights.1"]


def test_dataset_names_must_be_unique(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.yaml", {"name": "run", "corpus": {"datasets": [DATASET, DATASET]}})
    assert "corpus: dataset names must be unique; used twice: a" in fault(path)


def test_all_faults_are_listed(file: Path) -> None:
    text = fault(file, "training.epochs=0", "merge.method=average", "foo=1")
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == ["training.epochs", "merge.method", "foo"]


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "corpus: is required" in fault(write(tmp_path / "a.yaml", "name: run\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [\n", "cannot be read"),
        ("name: a\nname: b\n", "found duplicate key name"),
        ("- 1\n", "must hold keys and values at its top level"),
        ("just words\n", "just words: unknown key"),
        ("name: ${oc.env:BOOM_RAY_UNSET}\n", "Environment variable 'BOOM_RAY_UNSET' not found"),
        ("name: ${no.such.key}\n", "Interpolation key 'no.such.key' not found"),
    ],
)
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    found = fault(path)
    assert expected in found
    assert str(path) in found


def test_a_missing_file_is_an_error_that_points_to_ready_made_ones(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.yaml") == (
        f"No configuration file at {tmp_path / 'none.yaml'}; the ready-made ones are in conf/."
    )
    assert "cannot be read" in fault(tmp_path)


@pytest.mark.parametrize("override", ["epochs", "=1", "x=[1", "corpus.datasets.5.name=x", "corpus.datasets.x=1"])
def test_a_malformed_override_is_named(file: Path, override: str) -> None:
    assert fault(file, override).startswith(f"Override '{override}' ")


def test_environment_and_other_keys_are_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOM_RAY_NAME", "from-env")
    values = MINIMAL | {"name": "${oc.env:BOOM_RAY_NAME}", "store": "s/${name}/${oc.env:BOOM_RAY_UNSET,x}", "seed": 3}
    path = write(tmp_path / "run.yaml", values | {"bags": {"members": [{"name": "m", "ratio": 1, "seed": "${seed}"}]}})
    config = load_config(RunConfig, path, ["seed=4"])
    assert config.store == "s/from-env/x"
    assert config.bags.members[0].seed == 4


def test_printed_configuration_loads_to_the_same_one(file: Path, tmp_path: Path) -> None:
    overrides = ["bags.mixture.caps={a: 5}", "model.lora={targets: [q, k]}", "merge.weights=[0.25, 0.75]"]
    config = load_config(RunConfig, file, overrides)
    again = load_config(RunConfig, write(tmp_path / "printed.yaml", to_yaml(config)))
    assert again == config
    assert to_yaml(again) == to_yaml(config)


@given(st.text(st.sampled_from("ab\\${}:'\"#\n é"), max_size=12))
def test_any_template_survives_printing(tmp_path_factory: pytest.TempPathFactory, prefix: str) -> None:
    config = ModelConfig(query_template=prefix.replace("{text}", "") + "{text}")
    path = write(tmp_path_factory.mktemp("printed") / "model.yaml", to_yaml(config))
    assert load_config(ModelConfig, path) == config


def test_validate_wants_a_mapping() -> None:
    with pytest.raises(ConfigError, match="here must hold keys and values"):
        validate(RunConfig, [1], "here")


class TestExtends:
    def test_sections_are_merged_lists_replaced_and_the_file_wins(self, tmp_path: Path) -> None:
        write(
            tmp_path / "parts" / "corpus.yaml", {"corpus": MINIMAL["corpus"], "training": {"epochs": 2, "negatives": 9}}
        )
        write(tmp_path / "parts" / "bags.yaml", {"bags": {"ratios": [0.2, 0.4]}, "training": {"negatives": 8}})
        path = write(
            tmp_path / "run.yaml",
            {"extends": ["parts/corpus.yaml", "parts/bags.yaml"], "name": "run", "training": {"epochs": 5}}
            | {"bags": {"ratios": [1.0]}},
        )
        config = load_config(RunConfig, path, ["training.batch_size=8"])
        assert config.corpus.datasets[0].name == "a"
        assert (config.training.epochs, config.training.negatives, config.training.batch_size) == (5, 8, 8)
        assert config.bags.ratios == (1.0,)

    def test_paths_count_from_the_file_that_names_them(self, tmp_path: Path) -> None:
        write(tmp_path / "a" / "leaf.yaml", MINIMAL)
        write(tmp_path / "a" / "middle.yaml", {"extends": "leaf.yaml"})
        path = write(tmp_path / "b" / "run.yaml", {"extends": "../a/middle.yaml", "seed": "${training.epochs}"})
        assert load_config(RunConfig, path, ["training.epochs=7"]).seed == 7

    def test_one_file_may_be_reached_twice(self, tmp_path: Path) -> None:
        write(tmp_path / "leaf.yaml", MINIMAL)
        write(tmp_path / "one.yaml", {"extends": "leaf.yaml", "seed": 1})
        path = write(tmp_path / "run.yaml", {"extends": ["one.yaml", "leaf.yaml"]})
        assert load_config(RunConfig, path).seed == 1

    def test_a_ring_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path / "a.yaml", {"extends": "b.yaml"})
        path = write(tmp_path / "b.yaml", {"extends": "a.yaml"})
        assert "extends itself: b.yaml → a.yaml → b.yaml" in fault(path)

    def test_a_missing_parent_is_named_with_the_file_that_wants_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "run.yaml", {"extends": "none.yaml"})
        assert fault(path) == f"No configuration file at {tmp_path / 'none.yaml'}, which {path} extends."

    @pytest.mark.parametrize("value", [5, {"a": 1}, ["a.yaml", 1]])
    def test_it_is_a_name_or_a_list_of_names(self, tmp_path: Path, value: Any) -> None:
        assert "extends must be a file name or a list of them" in fault(write(tmp_path / "a.yaml", {"extends": value}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.dropout=0.1", "training.resources.workers=[1,2]"], "with dropout a member depends on"),
        (["model.lora={dropout: 0.1}", "training.resources.workers=[1,2]"], "with dropout a member depends on"),
        (["training.parallelism=fsdp", "training.resources.workers=[1,2]"], "fsdp needs two workers at least"),
        (["training.parallelism=fsdp"], "fsdp needs two workers at least"),
        (["training.resources.gpus_per_worker=2"], "a worker computes on one GPU; set workers"),
        (
            ["training.resources.gpus_per_worker=0.5", "training.resources.workers=2"],
            "gpus_per_worker=0.5 with several workers: workers of one member cannot share a GPU",
        ),
        (
            ["training.negatives=0", "corpus.datasets.0.in_batch=false"],
            "dataset a has only its own negatives (in_batch: false), and training.negatives=0 leaves none",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(file: Path, overrides: list[str], message: str) -> None:
    assert message in fault(file, *overrides)
