"""jobs/merge.py in this process: what it makes, what it says, and what it leaves behind when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from boom_ray.config import MergeJobConfig
from boom_ray.flows.command import command
from boom_ray.flows.merge.flow import merge_models
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
        params, card = run.data.params, (product(kitchen, method) / "README.md").read_text()
        assert "looked_at.json" in files and len(params["lineage.corpus looked at"]) == 32
        assert (params["looked_at.examples.pairs"], params["looked_at.settings.sample.batch"]) == ("16", "8")
        of = {"fisher": "fisher of one", "regmean": "activations of one", "self_positioning": "learned weights"}[method]
        assert f"| {of} | `{params[f'lineage.{of}']}` |" in card and "| topics | 16 |" in card
        if method == "self_positioning":
            assert float(run.data.params["recipe.parameters.scale"]) > 0
            assert "loss_after" in (product(kitchen, method) / "README.md").read_text()

    def test_the_greedy_soup_keeps_what_its_scores_say(self, kitchen):
        evaluation = {"selection": [kitchen.task("retrieval")], "in_domain": [kitchen.task("sts")]}
        assert merge_job(kitchen, name="greedy", merge={"method": "greedy_soup"}, evaluation=evaluation) == 0
        run, _ = last_run(kitchen, "greedy")
        client = mlflow.MlflowClient(f"sqlite:///{kitchen.root}/mlflow.db")
        found = json.loads(Path(client.download_artifacts(run.info.run_id, "found.json")).read_text())
        soups = found["soups"]
        assert found["selection"] == [kitchen.task("retrieval")["name"]]
        assert set(MEMBERS) < set(soups) and len(soups) == 5, "every member, and a soup with each but the best"
        kept = [name for name in MEMBERS if float(run.data.params[f"weights_used.{name}"]) > 0]
        score = soups[kept[0]] if len(kept) == 1 else soups["soup " + "+".join(kept)]
        assert score >= max(soups[name] for name in MEMBERS)
        reported = {name for name in run.data.metrics if name.startswith("scores/")}
        assert reported == {"scores/in_domain", f"scores/{kitchen.task('sts')['name']}"}, "not what it was chosen by"

    def test_without_a_base_there_is_still_a_report(self, kitchen):
        assert merge_job(kitchen, name="baseless", base=None) == 0
        run, files = last_run(kitchen, "baseless")
        assert "geometry/by_layer.csv" in files and "geometry/sign_agreement" not in run.data.metrics


class TestDryRun:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_has_a_plan_and_nothing_is_written(self, kitchen, method, tmp_path, capsys):
        members = [kitchen.path(name) for name in (MEMBERS[:2] if METHODS[method].most == 2 else MEMBERS)]
        changes: dict[str, Any] = {"store": str(tmp_path / "store"), "members": members, "merge": {"method": method}}
        changes |= {"corpus": kitchen.corpus(), "evaluation": {"selection": [kitchen.task("sts")]}}
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
