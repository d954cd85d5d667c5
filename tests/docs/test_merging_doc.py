"""docs/merging.md says what the code does: methods, parameters, defaults, figures, examples."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from boom_ray.config import MergeConfig
from boom_ray.config.merge import ProbeConfig
from boom_ray.config.methods import PARAMETERS
from boom_ray.flows.geometry import SHORT
from boom_ray.merging.geometry.portrait import Portrait
from boom_ray.merging.geometry.report import table as report
from boom_ray.merging.geometry.signs import Signs
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.tensors.space import Space
from boom_ray.merging.tensors.vectors import STRIP
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "merging.md").read_text(encoding="utf-8")
BASES = {"ignored": "never", "required": "always", "optional": "as `merge.base` says"}
ARXIV = re.compile(r"\d{4}\.\d{5}")


def tables():
    """Every table of the page as rows of cells, the titles first."""
    found, rows = [], []
    for line in [*PAGE.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


@cache
def methods():
    """Name to row of the table of all methods."""
    (table,) = [table for table in tables() if table[0][:3] == ["method", "what it computes", "base"]]
    return {row[0].strip("`"): dict(zip(table[0], row, strict=True)) for row in table[1:]}


def test_the_table_lists_exactly_the_registry():
    assert list(methods()) == list(PARAMETERS)
    assert set(methods()) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_has_the_base_and_every_parameter_with_its_default(name):
    row, defaults = methods()[name], PARAMETERS[name]().model_dump()
    assert row["base"] == BASES[METHODS[name].base]
    told = dict(re.findall(r"`(\w+)`: ([^,]+)", row["parameters: default"]))
    assert told == {key: str(value) for key, value in defaults.items()}


@pytest.mark.parametrize("name", METHODS)
def test_a_row_names_the_sources_of_the_registry(name):
    method, row = METHODS[name], methods()[name]
    for number in ARXIV.findall(method.source):
        assert f"https://arxiv.org/abs/{number}" in row["source"], f"{number} is missing in the row of {name}"
    assert "](http" in row["source"]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_says_how_many_members_a_method_takes(name):
    method, row = METHODS[name], methods()[name]
    wanted = {(2, 2): ["exactly 2"], (2, None): ["at least 2"], (1, None): []}[method.least, method.most]
    assert re.findall(r"(exactly \d|at least \d) members", row["what it computes"]) == wanted


def test_every_method_and_option_that_the_page_names_exists():
    chosen = re.findall(r"merge\.method=(\w+)", PAGE) + re.findall(r"^  method: (\w+)", PAGE, re.M)
    assert chosen
    assert set(chosen) <= set(METHODS)
    options = set(re.findall(r"`merge\.(\w+)", PAGE))
    assert options <= MergeConfig.model_fields.keys()
    _, choosing = PAGE.split("## Which one", 1)
    listed = re.findall(r"^\d\. .*$", choosing.split("## ", 1)[0], re.M)
    assert len(listed) == 5
    parameters = {key for schema in PARAMETERS.values() for key in schema.model_fields}
    for name in re.findall(r"`(\w+)`", " ".join(listed)):
        assert name in METHODS or name in parameters


def test_defaults_in_the_text_are_those_of_the_configuration():
    merge, probe = MergeConfig(), ProbeConfig()
    for told in (
        f"`{merge.method}`, the default",
        f"`chunk_mb` ({merge.chunk_mb} MiB per member)",
        f"`shard_gb` ({merge.shard_gb:g} GB)",
        f"`distribute_gb` ({merge.distribute_gb:g} GiB)",
        f"`examples` {probe.examples}",
        f"`batch` {probe.batch}",
        f"`steps` {probe.steps}",
        f"`learning_rate` {probe.learning_rate:g}",
        f"`penalty` {probe.penalty:g}",
        f"strips of {STRIP:,} elements",
    ):
        assert told in " ".join(PAGE.split()), told
    assert (merge.base, merge.merge_dtype, merge.output_dtype) == ("none", "auto", "members")


def code(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def test_the_yaml_loads():
    blocks = code("yaml")
    assert blocks
    for block in blocks:
        MergeConfig.model_validate(yaml.safe_load(block)["merge"])


@pytest.mark.filterwarnings("ignore")
def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [str(make_tiny_model(tmp_path / f"m{seed}", seed=seed)) for seed in (1, 2)]
    (block,) = code("python")
    names = {"folders": folders}
    exec(compile(block, "docs/merging.md", "exec"), names)
    assert names["vectors"].shape == (1, 32)


WEIGHTS, LENGTHS = np.array([0.2, 0.3, 0.5]), np.array([0.016, 0.02, 0.024])


class Members:
    """Three differences with one cosine between every two, at right angles to a base of length 1."""

    def __init__(self, cosine):
        cosines = np.full((3, 3), cosine) + (1 - cosine) * np.eye(3)
        self.basis = np.zeros((4, 4))
        self.basis[0, 0] = 1.0
        self.basis[1:, 1:] = cosines * np.outer(LENGTHS, LENGTHS)

    def update(self, name, base):
        """Merged model - base in the basis of base and differences."""
        parameters = PARAMETERS[name]().model_dump()
        found = METHODS[name].rule(Space.of_differences(self.basis, whole=not base), WEIGHTS, parameters)
        return np.array([0.0 if base else found.sum() - 1, *found])

    def length(self, update):
        return float(np.sqrt(update @ self.basis @ update))


def test_the_figures_about_multislerp_are_what_the_code_gives():
    (table,) = [table for table in tables() if table[0][0] == "cosine between differences"]
    for row in table[1:]:
        members = Members(float(row[0]))
        average, whole = members.update("linear", base=False), members.update("multislerp", base=False)
        about, size = members.update("multislerp", base=True), members.length
        step, mean = (members.update(name, base=True) for name in ("riemannian_step", "karcher"))
        assert row[1:] == [
            f"{size(average) / (WEIGHTS @ LENGTHS):.3f}",
            f"{size(whole - average) / size(average):.4f}",
            f"{size(about) / size(average):.3f}",
            f"{size(step - about) / size(about):.4f}",
            f"{size(mean - about) / size(about):.4f}",
        ]
        for name in ("riemannian_step", "karcher"):
            assert size(members.update(name, base=False) - whole) / size(average) < 2e-5


def test_the_table_of_the_geometry_report_has_its_columns():
    (found,) = [table for table in tables() if table[0][0] == "column"]
    columns = {name: row for row in found[1:] for name in re.findall(r"`([^`]+)`", row[0])}
    recipe = resolve(MergeConfig(method="linear"), [MemberRef("NAME", "", "", 0)])
    names, sizes, once = ("NAME",), {"w": 3}, np.ones((1, 1), dtype=np.int64)
    about = Portrait(names, sizes, {"w": np.eye(2)}, {"w": Signs(once, once, 1.0)}, about_base=True)
    whole = Portrait(names, sizes, {"w": np.eye(1)}, {}, about_base=False)
    with_base, without = (list(report(one, recipe)[-1]) for one in (about, whole))
    assert list(columns) == with_base
    assert [name for name, row in columns.items() if not row[2]] == without
    assert {name for name, row in columns.items() if row[0].endswith("*")} == set(SHORT)


def test_links_to_files_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
