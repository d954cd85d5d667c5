"""Which files the product takes over from the first member."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from boom_ray.errors import MergeError
from boom_ray.merging.product.package import complete, describe, write_dtype
from boom_ray.merging.reading.checkpoint import open_checkpoint
from tests.merging.adapted import make_adapter, make_base
from tests.plain_model import FILES, WriteModel

TENSORS = {"w": torch.ones(2)}


def test_all_but_weights_and_traces_of_training(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS)
    extra = ["LICENSE", "vocab.txt", "chat_template.jinja"]
    traces = ["README.md", "artifact.json", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", ".git/config"]
    traces += ["checkpoint-9/model.safetensors", "consolidated.safetensors", "model.safetensors.index.json.bak/x.pt"]
    for name in extra + traces:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    package = describe(open_checkpoint(folder, "bag0"))
    assert sorted(package.copied) == sorted([*FILES, *extra])
    assert sorted(package.left_out) == sorted(traces)


def test_weights_outside_of_all_modules_are_refused(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS)
    (folder / "query_0_Dense").mkdir()
    save_file(TENSORS, folder / "query_0_Dense" / "model.safetensors")
    with pytest.raises(MergeError, match=r"query_0_Dense/model\.safetensors of bag0 .* belongs to no module"):
        describe(open_checkpoint(folder, "bag0"))


def test_the_fingerprint_follows_the_copied_files_only(write_model: WriteModel) -> None:
    one = describe(open_checkpoint(write_model("one", TENSORS), "one"))
    (write_model("two", TENSORS) / "README.md").write_text("another")
    two = describe(open_checkpoint(one.folder.parent / "two", "two"))
    assert one.fingerprint() == two.fingerprint()
    (two.folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert one.fingerprint() != two.fingerprint()


def test_the_config_names_the_type_of_the_weights(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS, files={"config.json": {"model_type": "bert", "torch_dtype": "float16"}})
    write_dtype(folder, torch.bfloat16)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "bert", "dtype": "bfloat16"}


PLAIN = {"modules.json": None, "1_Pooling/config.json": None, "config_sentence_transformers.json": None}


@pytest.mark.parametrize(("pooling", "mode"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "lasttoken")])
def test_plain_folders_become_sentence_transformers(tmp_path: Path, pooling: str, mode: str) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_base(tmp_path / "base", "qwen3")
    package = describe(open_checkpoint(base, "bag0"))
    assert package.is_plain and package.folder == base
    target = tmp_path / "product"
    target.mkdir()
    package.copy(target)
    complete(package, target, pooling, normalize=pooling != "cls", prompts={"query": "Q: "})
    (target / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    model = SentenceTransformer(str(target))
    assert model[1].pooling_mode == mode and len(model) == (2 if pooling == "cls" else 3)
    assert model.prompts["query"] == "Q: "
    assert model.max_seq_length == 64  # positions of the model; its tokenizer would allow 128
    assert model.encode(["a cat"]).shape == (1, 16)


def test_the_length_can_be_told(write_model: WriteModel, tmp_path: Path) -> None:
    package = describe(open_checkpoint(write_model("bag0", TENSORS, files=PLAIN), "bag0"))
    for name, told in (("a", 9), ("b", None)):
        (tmp_path / name).mkdir()
        package.copy(tmp_path / name)
        complete(package, tmp_path / name, "mean", max_tokens=told)
    texts = [json.loads((tmp_path / name / "sentence_bert_config.json").read_text()) for name in ("a", "b")]
    assert texts == [{"do_lower_case": False, "max_seq_length": 9}, {"do_lower_case": False}]


def test_a_plain_folder_needs_a_pooling(write_model: WriteModel, tmp_path: Path) -> None:
    package = describe(open_checkpoint(write_model("bag0", TENSORS, files=PLAIN), "bag0"))
    with pytest.raises(
        MergeError,
        match=r"bag0 is a plain transformers folder \(it has no modules\.json\) and does not say how token states "
        r"become one vector; set model\.pooling to cls, mean or lasttoken",
    ):
        complete(package, tmp_path, None)
    with pytest.raises(MergeError, match="and max is no known way"):
        package.check_pooling("max")
    package.check_pooling("cls")


def test_a_config_without_width(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS, files=PLAIN | {"config.json": {"model_type": "odd"}})
    with pytest.raises(MergeError, match="names no width of the hidden states"):
        complete(describe(open_checkpoint(folder, "bag0")), folder, "mean")


def test_complete_folders_are_left_as_they_are(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS)
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    package = describe(open_checkpoint(folder, "bag0"))
    complete(package, folder, "lasttoken", prompts={"query": "another"})
    assert not package.is_plain and before == {path: path.read_bytes() for path in folder.rglob("*.json")}


def test_a_file_of_a_repeated_tensor_is_left_out(write_model: WriteModel) -> None:
    config = FILES["config.json"] | {"tie_word_embeddings": True}
    folder = write_model("bag0", {"embed_tokens.weight": torch.ones(2, 1)}, files={"config.json": config})
    save_file({"lm_head.weight": torch.ones(2, 1)}, folder / "head.safetensors")
    (folder / "model.safetensors").rename(folder / "rest.safetensors")
    index = {"lm_head.weight": "head.safetensors", "embed_tokens.weight": "rest.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    checkpoint = open_checkpoint(folder, "bag0")
    assert list(checkpoint.tensors) == ["embed_tokens.weight"]
    assert describe(checkpoint).left_out == ("head.safetensors", "model.safetensors.index.json")


def test_what_an_adapter_s_folder_has_of_its_own_counts(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "a", target_modules=["query"])
    (adapter / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Q: "}}')
    (adapter / "optimizer.pt").write_bytes(b"x")
    package = describe(open_checkpoint(adapter, "bag0", open_checkpoint(base, "base")))
    assert package.folder == base and not package.is_plain
    assert package.sources["config_sentence_transformers.json"].parent == adapter
    assert package.sources["1_Pooling/config.json"] == base / "1_Pooling" / "config.json"
    assert {"adapter_config.json", "README.md", "optimizer.pt"} <= set(package.left_out)
    package.copy(tmp_path / "product")
    assert json.loads((tmp_path / "product" / "config_sentence_transformers.json").read_text())["prompts"]
