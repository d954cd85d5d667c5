"""Adapters read as the models that peft folds them into."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.errors import MergeError
from boom_ray.merging.product.package import complete, describe
from boom_ray.merging.product.writer import Entry, SafetensorsWriter
from boom_ray.merging.reading.adapters import Adapter, adapter_fingerprint
from boom_ray.merging.reading.agreement import align_base, check_members
from boom_ray.merging.reading.checkpoint import Checkpoint, open_checkpoint
from tests.merging.adapted import edit_file, folded, make_adapter, make_base

QUERY = "encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bert") / "base")


@pytest.fixture(scope="module")
def simple(bert: Path) -> Path:
    return make_adapter(bert, bert.parent / "simple", target_modules=["query", "word_embeddings"])


def opened(base: Path, adapter: Path) -> Checkpoint:
    return open_checkpoint(adapter, "bag", open_checkpoint(base, "base"))


def whole(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    info = checkpoint.tensors[key]
    return checkpoint.read(info, 0, info.numel, torch.empty(info.nbytes, dtype=torch.uint8)).clone()


def check_equal(checkpoint: Checkpoint, wanted: dict[str, torch.Tensor], prefix: str, tolerance: float) -> int:
    """All tensors as wanted; how many of them the adapter changes."""
    changed = 0
    for key, info in checkpoint.tensors.items():
        found, right = whole(checkpoint, key), wanted[key.removeprefix(prefix)].flatten()
        assert found.dtype == checkpoint.read_type(info), key
        assert (found.double() - right.double()).norm() <= tolerance * right.double().norm(), key
        changed += found.dtype != info.dtype
    return changed


BERT_CASES: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["query", "value"]},
    "all linear": {"target_modules": "all-linear"},
    "stabilised": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"query": 2, r"layer\.1\.intermediate\.dense": 7},
        "alpha_pattern": {"^encoder.layer.0.attention.self.value": 3, "dense": 5},
    },
    "one layer": {"target_modules": ["key"], "layers_to_transform": [1]},
    "embeddings": {"target_modules": ["word_embeddings", "position_embeddings", "key"]},
    "all biases, norms whole": {"target_modules": ["query"], "bias": "all", "modules_to_save": ["LayerNorm"]},
    "their own biases": {"target_modules": ["query", "dense"], "bias": "lora_only"},
    "biases of B": {"target_modules": ["query", "dense"], "lora_bias": True},
    "whole embeddings": {"target_modules": ["query"], "modules_to_save": ["word_embeddings"]},
}


@pytest.mark.parametrize("case", BERT_CASES)
def test_bert_as_peft_folds_it(bert: Path, tmp_path: Path, case: str) -> None:
    adapter = make_adapter(bert, tmp_path / "a", **BERT_CASES[case])
    with opened(bert, adapter) as checkpoint:
        wanted = folded(bert, adapter)
        assert checkpoint.tensors.keys() == load_file(bert / "model.safetensors").keys()
        assert check_equal(checkpoint, wanted, "", 1e-12) > 0


@pytest.mark.parametrize(("base_head", "adapter_head"), [(False, False), (True, False), (False, True), (True, True)])
def test_qwen_with_and_without_a_language_model_around(tmp_path: Path, base_head: bool, adapter_head: bool) -> None:
    base = make_base(tmp_path / "base", "qwen3", head=base_head)
    adapter = make_adapter(base, tmp_path / "a", head=adapter_head, target_modules="all-linear")
    wanted = folded(base, adapter, head=adapter_head)
    named = {name.removeprefix("model."): value for name, value in wanted.items()}
    with opened(base, adapter) as checkpoint:
        assert check_equal(checkpoint, named, "model.", 1e-12) == 14


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [{"target_modules": ["embed_tokens", "q_proj"]}, {"modules_to_save": ["norm"]}])
def test_over_16_bits_nothing_is_rounded_to_16_bits(
    tmp_path: Path, dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base", "qwen3", dtype)
    adapter = make_adapter(base, tmp_path / "a", **({"target_modules": ["o_proj"]} | settings))
    with opened(base, adapter) as checkpoint:
        assert all(info.dtype == dtype for info in checkpoint.tensors.values())
        assert check_equal(checkpoint, folded(base, adapter), "", 1e-6) > 0
        assert {checkpoint.read_type(info) for info in checkpoint.tensors.values()} == {dtype, torch.float32}


def test_layers_that_store_inputs_first(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "gpt2")
    adapter = make_adapter(base, tmp_path / "a", target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    with opened(base, adapter) as checkpoint:
        assert check_equal(checkpoint, folded(base, adapter), "", 1e-12) == 4


@pytest.mark.parametrize("key", [f"{QUERY}.weight", "embeddings.word_embeddings.weight", f"{QUERY}.bias"])
def test_reading_in_pieces_gives_the_same_bits(bert: Path, tmp_path: Path, key: str) -> None:
    adapter = make_adapter(bert, tmp_path / "a", r=5, target_modules=["query", "word_embeddings"], lora_bias=False)
    with opened(bert, adapter) as checkpoint:
        info, expected = checkpoint.tensors[key], whole(checkpoint, key)
        cuts = [0, 1, 2, 31, 32, 33, 64, 100, 500, 501, 1000, info.numel]
        spans = [(low, high) for low in cuts for high in cuts if low <= high <= info.numel]

        def same(span: tuple[int, int]) -> bool:
            buffer = torch.empty((span[1] - span[0]) * 4, dtype=torch.uint8)
            return torch.equal(checkpoint.read(info, *span, buffer), expected[span[0] : span[1]])

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(same, spans))


def test_few_factors_stay_in_memory(bert: Path, tmp_path: Path) -> None:
    adapter = make_adapter(bert, tmp_path / "a", target_modules="all-linear")
    with opened(bert, adapter) as checkpoint:
        assert isinstance(checkpoint, Adapter) and checkpoint.is_adapter
        first = {key: whole(checkpoint, key) for key in checkpoint.tensors}
        assert len(checkpoint._factors) == 4
        assert all(torch.equal(whole(checkpoint, key), value) for key, value in first.items())


def test_a_base_that_is_closed_is_not_needed(bert: Path, simple: Path) -> None:
    with open_checkpoint(bert, "base") as base:
        checkpoint = open_checkpoint(simple, "bag", base)
    with checkpoint:
        assert torch.isfinite(whole(checkpoint, f"{QUERY}.weight")).all()


def test_adapters_agree_with_one_another_and_their_base(bert: Path, simple: Path, tmp_path: Path) -> None:
    other = make_adapter(bert, tmp_path / "b", target_modules="all-linear")
    base = open_checkpoint(bert, "base")
    members = [open_checkpoint(simple, "a", base), open_checkpoint(other, "b", base), base]
    check_members(members, "members")
    assert align_base(base, members[0]) == base.tensors


def write_product(checkpoint: Checkpoint, target: Path, pooling: str | None) -> Path:
    package = describe(checkpoint)
    target.mkdir()
    package.copy(target)
    complete(package, target, pooling)
    for module in {info.module for info in checkpoint.tensors.values()}:
        infos = [info for info in checkpoint.tensors.values() if info.module == module]
        entries = [Entry(info.name, info.dtype, info.shape) for info in infos]
        with SafetensorsWriter(target / module / "model.safetensors", entries) as writer:
            for info in infos:
                writer.put(info.name, 0, whole(checkpoint, info.key).to(info.dtype))
    return target


def test_the_product_of_an_adapter_encodes_as_the_adapter(bert: Path, simple: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    with opened(bert, simple) as checkpoint:
        target = write_product(checkpoint, tmp_path / "product", None)
    assert not list(target.rglob("adapter*"))
    adapted = SentenceTransformer(str(bert))
    adapted.load_adapter(str(simple))
    found, wanted = (model.encode(["a cat", "the river"]) for model in (SentenceTransformer(str(target)), adapted))
    assert abs(found - wanted).max() < 1e-5
    assert abs(found - SentenceTransformer(str(bert)).encode(["a cat", "the river"])).max() > 1e-2


def save_with_dense(base: Path, folder: Path) -> Path:
    """A sentence-transformers model with prompts, a Dense module and an adapter, over a plain base."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer

    model = SentenceTransformer(
        modules=[Transformer(str(base)), Pooling(16, "lasttoken"), Dense(16, 8)], prompts={"query": "Q: "}
    )
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data.normal_()
    model.save_pretrained(str(folder))
    return folder


def test_a_sentence_transformers_folder_with_an_adapter(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_base(tmp_path / "base", "qwen3")
    folder = save_with_dense(base, tmp_path / "a")
    with opened(base, folder) as checkpoint:
        assert [key for key in checkpoint.tensors if key.startswith("2_Dense/")]
        target = write_product(checkpoint, tmp_path / "product", None)
    found, wanted = (SentenceTransformer(str(place)) for place in (target, folder))
    assert found.prompts["query"] == "Q: "
    assert abs(found.encode_query(["a cat"]) - wanted.encode_query(["a cat"])).max() < 1e-5


def test_modules_saved_beside_an_adapter_replace_the_base_s(bert: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    first = save_with_dense(make_base(tmp_path / "plain", "qwen3"), tmp_path / "a")
    with opened(tmp_path / "plain", first) as checkpoint:
        write_product(checkpoint, base, None)
    changed = {"linear.weight": torch.full((8, 16), 2.0), "linear.bias": torch.zeros(8)}
    save_file(changed, first / "2_Dense" / "model.safetensors")
    with opened(base, first) as checkpoint:
        assert torch.equal(whole(checkpoint, "2_Dense/linear.weight"), torch.full((128,), 2.0))
    save_file({"linear.weight": torch.ones(8, 15)}, first / "2_Dense" / "model.safetensors")
    with pytest.raises(MergeError, match=r"2_Dense/linear\.weight is torch\.float32 \[8, 15\]"):
        opened(base, first)


def test_a_base_whose_transformer_is_in_a_folder_of_its_own(bert: Path, simple: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bert, base / "0_Transformer", ignore=shutil.ignore_patterns("*_*", "modules.json"))
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(bert / name, base / "0_Transformer")
    modules = json.loads((bert / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (base / "modules.json").write_text(json.dumps(modules))
    with opened(base, simple) as checkpoint:
        check_equal(checkpoint, folded(bert, simple), "0_Transformer/", 1e-12)
        assert "0_Transformer/config.json" in describe(checkpoint).copied
    whole_folder = copy_of(simple, tmp_path / "a")
    shutil.copy(bert / "modules.json", whole_folder)
    with pytest.raises(MergeError, match=r"is in the root of .*, and the base's is in 0_Transformer of"):
        opened(base, whole_folder)


def test_an_adapter_needs_a_complete_base(bert: Path, simple: Path) -> None:
    with pytest.raises(MergeError, match=r"simple is an adapter and not a model\. Give the merge the base .*bert"):
        open_checkpoint(simple, "bag")
    with pytest.raises(MergeError, match="is an adapter and not a model"):
        open_checkpoint(simple, "bag", opened(bert, simple))


def test_a_model_and_an_adapter_in_one_folder(bert: Path, simple: Path, tmp_path: Path) -> None:
    both = make_base(tmp_path / "both")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (both / name).write_bytes((simple / name).read_bytes())
    with pytest.raises(MergeError, match="both a complete model and an adapter"):
        opened(bert, both)


def copy_of(adapter: Path, target: Path, **settings: Any) -> Path:
    target.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (target / name).write_bytes((adapter / name).read_bytes())
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(config | settings))
    return target


def test_an_adapter_saved_as_pickle(bert: Path, simple: Path, tmp_path: Path) -> None:
    folder = copy_of(simple, tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(MergeError, match=r"no adapter_model\.safetensors\. Save the adapter as safetensors"):
        opened(bert, folder)


def test_a_truncated_adapter_is_named(bert: Path, simple: Path, tmp_path: Path) -> None:
    path = copy_of(simple, tmp_path / "a") / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MergeError, match=r"adapter_model\.safetensors of bag is not a complete safetensors file"):
        opened(bert, path.parent)


A = f"base_model.model.{QUERY}.lora_A.weight"
B = A.replace("lora_A", "lora_B")


@pytest.mark.parametrize(
    ("changes", "settings", "text"),
    [
        ({A: None}, {}, f"{B} without its counterpart"),
        (
            {A: torch.ones(4, 31)},
            {},
            rf"{A} is torch.float32 \[4, 31\]; for {QUERY}.weight \[32, 32\] of the base .* \[4, 32\]",
        ),
        ({}, {"r": 8}, r"must be \[8, "),
        ({A.replace("query", "quest"): torch.ones(4, 32)}, {}, "quest.weight, which the base .* does not have"),
        (
            {A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(32)},
            {},
            "query.lora_magnitude_vector, .* DoRA",
        ),
        ({A.replace("lora_A.weight", "lora_diag"): torch.ones(32)}, {}, "query.lora_diag, .* more than the product"),
        ({"base_model.model.embeddings.token_adapter.trainable_tokens_delta": torch.ones(2, 32)}, {}, "token_adapter"),
        ({A: torch.ones(4, 32, dtype=torch.int32)}, {}, "is torch.int32"),
        ({A.replace(".weight", ".default.weight"): torch.ones(4, 32)}, {}, "which are about one tensor"),
        (
            {"base_model.model.embeddings.word_embeddings.weight": torch.ones(286, 32)},
            {},
            r"its tokenizer has other tokens",
        ),
    ],
)
def test_files_that_do_not_fit(
    bert: Path, simple: Path, tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], text: str
) -> None:
    folder = copy_of(simple, tmp_path / "a", **settings)
    edit_file(folder / "adapter_model.safetensors", **changes)
    with pytest.raises(MergeError, match=text):
        opened(bert, folder)


def test_an_adapter_without_tensors(bert: Path, simple: Path, tmp_path: Path) -> None:
    folder = copy_of(simple, tmp_path / "a")
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="holds no trained tensors"):
        opened(bert, folder)


def test_the_fingerprint_follows_what_determines_the_weights(simple: Path, tmp_path: Path) -> None:
    one = adapter_fingerprint(simple, "base0")
    assert one == adapter_fingerprint(copy_of(simple, tmp_path / "same", base_model_name_or_path="elsewhere"), "base0")
    assert one != adapter_fingerprint(simple, "base1")
    assert one != adapter_fingerprint(copy_of(simple, tmp_path / "scaled", lora_alpha=7), "base0")
    changed = copy_of(simple, tmp_path / "changed")
    edit_file(changed / "adapter_model.safetensors", **{A: torch.zeros(4, 32)})
    assert one != adapter_fingerprint(changed, "base0")
