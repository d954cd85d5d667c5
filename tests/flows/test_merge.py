"""jobs/merge.py in this process: what it makes, what it says, and what it leaves behind when something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from boom_ray.config import MergeJobConfig
from boom_ray.flows.command import command
from boom_ray.flows.merge import merge_models
from boom_ray.merging.methods.registry import METHODS
from boom_ray.store import Store
from tests.tiny_members import MEMBERS, Kitchen, make_kitchen

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Kitchen:
    return make_kitchen(tmp_path_factory.mktemp("kitchen"))


def merge_job(kitchen: Kitchen, *overrides: str, **changes: Any) -> int:
    return command(MergeJobConfig, merge_models, "merge", [str(kitchen.job(**changes)), *overrides])


def tensors(kitchen: Kitchen, name: str) -> dict[str, torch.Tensor]:
    return load_file(kitchen.root / name / WEIGHTS)


def product(kitchen: Kitchen, name: str = "tiny") -> Path:
    return kitchen.root / "store" / "models" / name


def last_run(kitchen: Kitchen, name: str) -> tuple[Any, set[str]]:
    """The newest MLflow run of a name, and the files it has."""
    client = mlflow.MlflowClient(f"sqlite:///{kitchen.root}/mlflow.db")
    experiment = client.get_experiment_by_name("boom_ray").experiment_id
    found = client.search_runs([experiment], f"attributes.run_name = '{name}'", order_by=["start_time DESC"])[0]
    files = {one.path for one in client.list_artifacts(found.info.run_id)}
    return found, files | {one.path for one in client.list_artifacts(found.info.run_id, "geometry")}


def artifacts(kitchen: Kitchen) -> list[tuple[str, str]]:
    return Store(kitchen.root / "store").finished()


@pytest.mark.ray
@pytest.mark.slow
class TestProducts:
    @pytest.fixture(autouse=True)
    def _cluster(self, ray_cluster):
        """All of these run on the session's cluster."""

    def test_three_folders_become_one_with_card_scores_and_geometry(self, kitchen, capsys):
        evaluation = {"in_domain": [kitchen.task("retrieval")]}
        assert merge_job(kitchen, evaluation=evaluation, merge={"method": "linear", "weights": [1, 1, 2]}) == 0
        made, members = load_file(product(kitchen) / WEIGHTS), [tensors(kitchen, name) for name in MEMBERS]
        for key, value in made.items():
            if value.is_floating_point():
                one, two, three = (member[key].double() for member in members)
                torch.testing.assert_close(value, (0.25 * one + 0.25 * two + 0.5 * three).float(), rtol=1e-6, atol=1e-7)
        assert np.isfinite(SentenceTransformer(str(product(kitchen)), device="cpu").encode(["a cat"])).all()
        card = (product(kitchen) / "README.md").read_text()
        for text in ("`linear`", f"`{kitchen.path('two')}`", "| 0.5 |", "fine-tuned from", "in-domain", "| merged |"):
            assert text in card
        said = capsys.readouterr().out
        for text in (
            f'SentenceTransformer("{product(kitchen)}")',
            "kept_linear",
            "whole model",
            "| merge" and "merged",
        ):
            assert text in said

    def test_mlflow_has_recipe_figures_lineage_and_pictures(self, kitchen):
        assert merge_job(kitchen, name="logged", merge={"method": "multislerp", "weights": [1, 1, 2]}) == 0
        run, files = last_run(kitchen, "logged")
        assert run.info.status == "FINISHED"
        params, metrics = run.data.params, run.data.metrics
        assert (params["recipe.method"], params["weights_used.three"]) == ("multislerp", "0.5")
        size = sum(value.nbytes for value in tensors(kitchen, "one").values())
        assert metrics["bytes_written"] == size
        for name in ("bytes_read", "memory_bound", "seconds", "coefficients/three/most", "geometry/cosine_mean"):
            assert name in metrics
        assert len(params["lineage.base"]) == len(params["lineage.member one"]) == 32
        assert run.data.tags["key"] in {key for kind, key in artifacts(kitchen) if kind == "merge"}
        pictures = {f"geometry/{name}.png" for name in ("cosines", "cosines_by_layer", "lengths_by_layer")}
        tables = {f"geometry/{name}.csv" for name in ("by_layer", "pairs", "tensors")}
        assert pictures | tables | {"recipe.json", "config.yaml", "model_card.md"} <= files

    def test_a_second_call_makes_nothing_and_another_weighting_only_merges(self, kitchen):
        changes = {"name": "twice", "merge": {"method": "karcher"}}
        assert merge_job(kitchen, **changes) == 0
        before = set(artifacts(kitchen))
        assert merge_job(kitchen, **changes) == 0
        assert set(artifacts(kitchen)) == before
        assert merge_job(kitchen, "merge.weights=[3,1,1]", **changes) == 0
        assert {kind for kind, _ in set(artifacts(kitchen)) - before} == {"merge", "release"}

    def test_artifacts_of_the_store_are_members_too(self, kitchen):
        assert merge_job(kitchen, name="first", members=[kitchen.path("one"), kitchen.path("two")]) == 0
        run, _ = last_run(kitchen, "first")
        members = [f"artifact:merge/{run.data.tags['key'][:8]}", kitchen.path("three")]
        assert merge_job(kitchen, name="second", members=members, merge={"method": "linear", "weights": [2, 1]}) == 0
        key = "encoder.layer.0.output.dense.weight"
        mean = sum(tensors(kitchen, name)[key].double() for name in MEMBERS) / 3
        torch.testing.assert_close(
            load_file(product(kitchen, "second") / WEIGHTS)[key].double(), mean, atol=1e-6, rtol=0
        )

    def test_an_adapter_is_folded_over_the_base(self, kitchen):
        from peft import PeftModel
        from transformers import AutoModel

        changes = {"members": [kitchen.path("adapter"), kitchen.path("one")], "name": "adapted"}
        evaluation = {"in_domain": [kitchen.task("sts")]}
        assert merge_job(kitchen, evaluation=evaluation, **changes) == 0
        folded = PeftModel.from_pretrained(AutoModel.from_pretrained(kitchen.path("base")), kitchen.path("adapter"))
        expected = folded.merge_and_unload().state_dict()
        made, one = load_file(product(kitchen, "adapted") / WEIGHTS), tensors(kitchen, "one")
        for key, value in made.items():
            if value.is_floating_point():
                torch.testing.assert_close(value, (expected[key] + one[key]) / 2, atol=1e-6, rtol=1e-5)
        assert "| adapter |" in (product(kitchen, "adapted") / "README.md").read_text()

    @pytest.mark.parametrize("method", ["fisher", "regmean", "self_positioning"])
    def test_methods_that_look_at_data(self, kitchen, method):
        merge = {"method": method, "probe": {"examples": 32, "batch": 8, "steps": 3, "actors": 1}, "geometry": False}
        loss = {"temperature": 0.05, "negatives": 1}
        assert merge_job(kitchen, name=method, merge=merge, corpus=kitchen.corpus(), loss=loss) == 0
        made = load_file(product(kitchen, method) / WEIGHTS)
        plain = sum(tensors(kitchen, name)["encoder.layer.0.output.dense.weight"] for name in MEMBERS) / 3
        found = made["encoder.layer.0.output.dense.weight"]
        assert torch.isfinite(found).all() and not torch.allclose(found, plain, atol=1e-6)
        run, files = last_run(kitchen, method)
        assert ("found.json" in files) == (method == "self_positioning")
        if method == "self_positioning":
            assert float(run.data.params["recipe.parameters.scale"]) > 0
            assert "loss_after" in (product(kitchen, method) / "README.md").read_text()

    def test_the_greedy_soup_keeps_what_its_scores_say(self, kitchen):
        evaluation = {"in_domain": [kitchen.task("retrieval")], "out_of_domain": [kitchen.task("sts")]}
        assert merge_job(kitchen, name="greedy", merge={"method": "greedy_soup"}, evaluation=evaluation) == 0
        run, _ = last_run(kitchen, "greedy")
        client = mlflow.MlflowClient(f"sqlite:///{kitchen.root}/mlflow.db")
        folder = Path(client.download_artifacts(run.info.run_id, "found.json"))
        soups = json.loads(folder.read_text())["soups"]
        assert set(MEMBERS) < set(soups) and len(soups) == 5, "every member, and a soup with each but the best"
        kept = [name for name in MEMBERS if float(run.data.params[f"weights_used.{name}"]) > 0]
        best = max(soups[name] for name in MEMBERS)
        score = soups[kept[0]] if len(kept) == 1 else soups["soup " + "+".join(kept)]
        assert run.data.metrics["scores/in_domain"] == pytest.approx(score) and score >= best

    def test_without_a_base_there_is_still_a_report(self, kitchen):
        assert merge_job(kitchen, name="baseless", base=None) == 0
        run, files = last_run(kitchen, "baseless")
        assert "geometry/by_layer.csv" in files and "geometry/sign_agreement" not in run.data.metrics


class TestDryRun:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_has_a_plan_and_nothing_is_written(self, kitchen, method, tmp_path, capsys):
        members = [kitchen.path(name) for name in (MEMBERS[:2] if METHODS[method].most == 2 else MEMBERS)]
        changes: dict[str, Any] = {"store": str(tmp_path / "store"), "members": members, "merge": {"method": method}}
        changes |= {"corpus": kitchen.corpus(), "evaluation": {"in_domain": [kitchen.task("sts")]}}
        assert merge_job(kitchen, "--dry-run", **changes) == 0
        said = capsys.readouterr().out
        for text in ("nothing was written", f"method       {method}", "39, 31,488 parameters", "memory       at most"):
            assert text in said
        assert list(tmp_path.iterdir()) == []

    def test_rules_say_how_many_tensors_they_speak_about(self, kitchen, tmp_path, capsys):
        rules = [{"layers": "1", "weights": [1, 0, 0]}, {"tensors": "embeddings.*", "parameters": {"density": 0.5}}]
        merge = {"method": "ties", "rules": rules}
        assert merge_job(kitchen, "--dry-run", merge=merge, store=str(tmp_path)) == 0
        said = capsys.readouterr().out
        assert "* in layers 1-1: 16 of 39 tensors, weights 1, 0, 0" in said
        assert "embeddings.*: 5 of 39 tensors, density 0.5" in said

    def test_coefficients_are_told_where_they_follow(self, kitchen, tmp_path, capsys):
        assert merge_job(kitchen, "--dry-run", "merge.weights=[1,1,2]", store=str(tmp_path)) == 0
        assert "coefficients three: 0.5 to 0.5" in capsys.readouterr().out
        changes = {"merge": {"method": "multislerp"}, "store": str(tmp_path)}
        assert merge_job(kitchen, "--dry-run", **changes) == 0
        assert "not in the store yet" in capsys.readouterr().out

    def test_weights_as_numbers_need_neither_data_nor_scores(self, kitchen, tmp_path, capsys):
        for method in ("self_positioning", "greedy_soup"):
            merge = {"method": method, "weights": [1, 1, 2]}
            assert merge_job(kitchen, "--dry-run", merge=merge, store=str(tmp_path)) == 0
            said = capsys.readouterr().out
            assert "weights      one 0.25, two 0.25, three 0.5" in said and "before it" not in said


@pytest.mark.ray
@pytest.mark.slow
def test_a_plan_after_a_merge_knows_coefficients_and_the_result(kitchen, ray_cluster, capsys):
    changes = {"name": "known", "merge": {"method": "multislerp", "base": "base"}}
    assert merge_job(kitchen, **changes) == 0
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in (kitchen.root / "store").rglob("*")}
    assert merge_job(kitchen, "--dry-run", **changes) == 0
    said = capsys.readouterr().out
    assert "geometry     in the store already" in said
    if "exists already" in said:  # files of a fixture are young, so their fingerprints may not have been kept
        assert "coefficients one: " in said
    assert {path: path.stat().st_mtime_ns for path in (kitchen.root / "store").rglob("*")} == before


class TestFaults:
    """One clear error, the right exit code, and nothing left behind."""

    @pytest.fixture
    def bad(self, kitchen, tmp_path) -> Path:
        """A copy of a member, to be spoilt."""
        return Path(shutil.copytree(kitchen.path("one"), tmp_path / "bad"))

    @staticmethod
    def spoil(folder: Path, **changes: torch.Tensor | None) -> None:
        found = {**load_file(folder / WEIGHTS), **changes}
        save_file({key: value for key, value in found.items() if value is not None}, folder / WEIGHTS)

    @staticmethod
    def fails(kitchen: Kitchen, tmp_path: Path, capsys: Any, *overrides: str, code: int = 1, **changes: Any) -> str:
        store = tmp_path / "store"
        assert merge_job(kitchen, f"store={store}", *overrides, **changes) == code
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and "Traceback" not in captured.err
        kept = {"fingerprint", "mlflow-artifacts"}  # of folders that were read, and of the run that failed
        assert [path.name for path in store.glob("*") if path.name not in kept and any(path.iterdir())] == []
        return str(captured.err)

    @pytest.fixture
    def fail(self, kitchen, tmp_path, capsys):
        return lambda *overrides, **changes: self.fails(kitchen, tmp_path, capsys, *overrides, **changes)

    def test_shapes(self, kitchen, bad, fail):
        key = "encoder.layer.0.output.dense.bias"
        self.spoil(bad, **{key: torch.zeros(5)})
        said = fail(members=[kitchen.path("one"), str(bad)])
        assert key in said and "[5]" in said and "bad" in said

    def test_a_missing_tensor(self, kitchen, bad, fail):
        self.spoil(bad, **{"encoder.layer.1.output.dense.bias": None})
        said = fail(members=[kitchen.path("one"), str(bad)])
        assert "encoder.layer.1.output.dense.bias" in said and "bad" in said

    def test_a_missing_shard(self, kitchen, bad, fail):
        found = load_file(bad / WEIGHTS)
        (bad / WEIGHTS).unlink()
        names = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(found)}
        save_file({key: found[key] for key, file in names.items() if "00001-of" in file}, bad / min(names.values()))
        (bad / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
        assert "model-00002-of-00002.safetensors, which is missing" in fail(members=[kitchen.path("one"), str(bad)])

    def test_a_truncated_file(self, kitchen, bad, fail):
        (bad / WEIGHTS).write_bytes((bad / WEIGHTS).read_bytes()[:-10])
        said = fail(members=[kitchen.path("one"), str(bad)])
        assert str(bad / WEIGHTS) in said and "not a complete safetensors file" in said

    @pytest.mark.ray
    @pytest.mark.slow
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    @pytest.mark.parametrize("geometry", ["true", "false"])
    def test_nan_and_infinity(self, kitchen, bad, fail, ray_cluster, value, geometry):
        key = "encoder.layer.1.intermediate.dense.bias"
        self.spoil(bad, **{key: torch.full((64,), value)})
        said = fail(f"merge.geometry={geometry}", members=[kitchen.path("one"), str(bad)])
        assert f"Tensor {key} of bad" in said and "NaN or infinity" in said

    def test_the_vocabulary(self, kitchen, bad, fail):
        key = "embeddings.word_embeddings.weight"
        self.spoil(bad, **{key: torch.zeros(100, 32)})
        said = fail(members=[kitchen.path("one"), str(bad)])
        assert "100" in said and key in said

    def test_the_tokenizer(self, kitchen, bad, fail):
        content = json.loads((bad / "tokenizer.json").read_text())
        content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
        (bad / "tokenizer.json").write_text(json.dumps(content))
        assert "tokenizer" in fail(members=[kitchen.path("one"), str(bad)])

    @pytest.mark.parametrize(
        ("overrides", "code", "text"),
        [
            (["merge.weights=[0,0,0]"], 2, "weights sum to zero"),
            (["merge.method=ties", "merge.parameters.desity=0.2"], 2, "ties has no parameter desity"),
            (["merge.method=slerp"], 1, "slerp merges exactly 2 members; there are 3"),
            (["merge.method=linear", "merge.base=base"], 1, "linear works on whole weights"),
            (["merge.method=ties", "base=null"], 2, "give base"),
            (["merge.method=multislerp", "merge.base=base", "base=null"], 2, "or merge.base=none"),
            (["merge.method=fisher"], 2, "give corpus.datasets"),
            (["merge.method=self_positioning"], 2, "or merge.weights as numbers"),
            (["merge.method=greedy_soup"], 2, "give evaluation.in_domain"),
            (["merge.rules=[{tensors: decoder.*}]"], 1, "no tensor is named like 'decoder.*'"),
            (["merge.rules=[{layers: 7-9}]"], 1, "the model's layers are 0-1"),
            (["members.1.path=/nowhere"], 1, "Give members.1.path an existing folder"),
            (["base=/nowhere"], 1, "Give base an existing folder"),
            (["members.1.path=artifact:member/123456"], 1, "has no artifact member/123456"),
            (["merge.weights=size"], 2, "members.0.examples"),
        ],
    )
    def test_configurations(self, kitchen, fail, overrides, code, text):
        members = [{"path": kitchen.path(name)} for name in MEMBERS]
        assert text in fail(*overrides, code=code, members=members)

    def test_an_adapter_without_its_base(self, kitchen, fail):
        assert "base" in fail(base=None, members=[kitchen.path("adapter")])

    def test_a_base_of_another_shape(self, kitchen, bad, fail):
        key = "encoder.layer.0.output.dense.bias"
        self.spoil(bad, **{key: torch.zeros(5)})
        assert key in fail(base=str(bad), merge={"method": "task_arithmetic"})

    def test_a_plain_folder_without_pooling(self, kitchen, bad, fail):
        (bad / "modules.json").unlink()
        assert "model.pooling" in fail(members=[str(bad)])
