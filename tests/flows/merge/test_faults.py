"""What jobs/merge.py refuses, and that nothing is left behind then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.flows.merge.test_flow import WEIGHTS, merge_job
from tests.tiny_members import MEMBERS, Kitchen, make_kitchen


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Kitchen:
    return make_kitchen(tmp_path_factory.mktemp("kitchen"))


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
            (["merge.method=greedy_soup"], 2, "give evaluation.selection"),
            (["merge.rules=[{tensors: decoder.*, weights: [1,1,2]}]"], 1, "no tensor is named like 'decoder.*'"),
            (["merge.rules=[{layers: 7-9, weights: [1,1,2]}]"], 1, "the model's layers are 0-1"),
            (["members.1.path=/nowhere"], 1, "Give members.1.path an existing folder"),
            (["base=/nowhere"], 1, "Give base an existing folder"),
            (["evaluation.in_domain=[{name: t, path: /nowhere, type: sts}]"], 1, "Task t: there is no folder /nowhere"),
            (
                ["merge.method=fisher", "corpus={datasets: [{name: d, source: /nowhere.jsonl, task_type: sts}]}"],
                1,
                "Dataset d: no such file: /nowhere.jsonl",
            ),
            (["members.1.path=artifact:member/123456"], 1, "has no artifact member/123456"),
            (["merge.weights=size"], 2, "members.0.examples"),
        ],
    )
    def test_configurations(self, kitchen, fail, overrides, code, text):
        members = [{"path": kitchen.path(name)} for name in MEMBERS]
        assert text in fail(*overrides, code=code, members=members)
        assert text in fail("--dry-run", *overrides, code=code, members=members)

    def test_an_adapter_without_its_base(self, kitchen, fail):
        assert "base" in fail(base=None, members=[kitchen.path("adapter")])

    def test_a_base_of_another_shape(self, kitchen, bad, fail):
        key = "encoder.layer.0.output.dense.bias"
        self.spoil(bad, **{key: torch.zeros(5)})
        assert key in fail(base=str(bad), merge={"method": "task_arithmetic"})
        for overrides in ([], ["--dry-run"]):
            said = fail(*overrides, base=str(bad), merge={"method": "linear"})
            assert key in said and "merge.geometry=false" in said

    def test_a_base_that_nothing_reads_may_be_any(self, kitchen, bad, tmp_path):
        self.spoil(bad, **{"encoder.layer.0.output.dense.bias": torch.zeros(5)})
        merge = {"method": "linear", "geometry": False}
        assert merge_job(kitchen, "--dry-run", base=str(bad), merge=merge, store=str(tmp_path / "store")) == 0

    def test_a_task_s_folder_without_its_files(self, kitchen, fail, tmp_path):
        task = {"name": "t", "path": str(tmp_path), "type": "sts"}
        assert f"Task t: {tmp_path / 'test.jsonl'} does not exist" in fail(evaluation={"out_of_domain": [task]})

    def test_a_plain_base_that_is_scored_needs_a_pooling(self, kitchen, bad, fail):
        (bad / "modules.json").unlink()
        said = fail(base=str(bad), evaluation={"in_domain": [kitchen.task("sts")]})
        assert f"{bad} is a plain transformers folder" in said and "model.pooling" in said

    def test_something_else_in_the_place_of_the_model(self, kitchen, tmp_path, capsys):
        place = tmp_path / "store" / "models" / "tiny"
        place.mkdir(parents=True)
        for overrides in ([], ["--dry-run"]):
            assert merge_job(kitchen, *overrides, store=str(tmp_path / "store")) == 2
            assert f"{place} is where the link to the merged model belongs" in capsys.readouterr().err
        assert [path.name for path in place.parent.iterdir()] == ["tiny"]

    def test_members_of_two_types_are_told_about_once(self, kitchen, bad, tmp_path):
        half = {
            key: value.half() if value.is_floating_point() else value for key, value in load_file(bad / WEIGHTS).items()
        }
        save_file(half, bad / WEIGHTS)
        changes = {"members": [kitchen.path("one"), str(bad)], "store": str(tmp_path / "store")}
        assert merge_job(kitchen, "--dry-run", merge={"output_dtype": "float32"}, **changes) == 0
        assert merge_job(kitchen, "--dry-run", merge={"output_dtype": "members"}, **changes) == 1

    def test_a_plain_folder_without_pooling(self, kitchen, bad, fail):
        (bad / "modules.json").unlink()
        assert "model.pooling" in fail(members=[str(bad)])
