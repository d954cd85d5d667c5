"""The geometry report against closed forms, numpy, and what merging really gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event
from boom_ray.merging.geometry import portrait as portrait_module
from boom_ray.merging.geometry.portrait import Portrait, find_portrait, gather_portrait, portrait, portrait_job
from boom_ray.merging.geometry.report import EMBEDDINGS, OTHER, WHOLE, group_of, groups, pair_rows, table, tensor_rows
from boom_ray.merging.geometry.signs import count_signs
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.tensors.vectors import Strip
from boom_ray.store import Store
from tests.merging.merged import merged
from tests.plain_model import WriteModel

Ref = Callable[..., MemberRef]
LINEAR = MergeConfig(method="linear")
KEYS = ("embeddings.word.weight", "encoder.layer.0.w", "encoder.layer.1.w", "norm.weight")


@pytest.fixture
def draw(tmp_path: Path, write_model: WriteModel, ref: Ref) -> Callable[..., Portrait]:
    """The portrait of members given as tensors, the base first; without base if that is None."""

    def make(base: dict[str, torch.Tensor] | None, *members: dict[str, torch.Tensor]) -> Portrait:
        refs = [ref(write_model(name, one)) for name, one in zip("abcde", members, strict=False)]
        below = ref(write_model("base", base)) if base else None
        return gather_portrait(portrait_job(Store(tmp_path / "store"), MergeInputs(refs, below), LINEAR))

    return make


def random_models(count: int, size: int = 5000, zeros: bool = True) -> list[dict[str, torch.Tensor]]:
    """A base and members around it, float64; some elements are not changed."""
    generator = torch.Generator().manual_seed(count)
    base = {key: torch.randn(size, generator=generator, dtype=torch.float64) for key in KEYS}
    common = {key: torch.randn(size, generator=generator, dtype=torch.float64) for key in KEYS}
    members = []
    for number in range(count):
        noise = {key: torch.randn(size, generator=generator, dtype=torch.float64) for key in KEYS}
        steps = {key: (common[key] + (number + 1) * noise[key]) * 0.01 for key in KEYS}
        if zeros:
            steps = {key: step * (torch.rand(size, generator=generator) > 0.3) for key, step in steps.items()}
        members.append({key: base[key] + steps[key] for key in KEYS})
    return [base, *members]


def flat(model: dict[str, torch.Tensor], keys: tuple[str, ...]) -> np.ndarray:
    return torch.cat([model[key] for key in keys]).numpy()


def test_a_case_by_hand(draw):
    base = {"embeddings.w": torch.tensor([3.0, 4.0, 0.0])}
    one, other = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    rows = table(
        draw(base, {"embeddings.w": base["embeddings.w"] + one}, {"embeddings.w": base["embeddings.w"] + other})
    )
    assert [row["group"] for row in rows] == [EMBEDDINGS, WHOLE]
    row = rows[0]
    assert (row["tensors"], row["parameters"], row["unchanged"], row["base_length"]) == (1, 3, 0, 5.0)
    assert (row["length a"], row["length b"], row["relative_length"]) == (3.0, 4.0, 0.7)
    assert row["cosine_mean"] == pytest.approx(0, abs=1e-15) and row["angle_most"] == pytest.approx(90)
    assert row["sign_agreement"] is None, "no element was changed by both"
    assert row["kept_linear"] == pytest.approx(2.5 / 3.5)
    assert row["kept_multislerp"] == pytest.approx(1)
    assert row["kept_sign_election"] == pytest.approx(5 / 3.5)


@pytest.mark.parametrize("count", [2, 4])
def test_figures_are_those_of_numpy(draw, count):
    base, *members = random_models(count)
    seen = draw(base, *members)
    by_name = {row["group"]: row for row in table(seen)}
    assert list(by_name) == [EMBEDDINGS, "layer 0", "layer 1", OTHER, WHOLE]
    pairs = list(itertools.combinations(range(count), 2))
    for name, keys in {"layer 1": KEYS[2:3], WHOLE: KEYS}.items():
        steps = np.stack([flat(one, keys) - flat(base, keys) for one in members])
        norms = np.linalg.norm(steps, axis=1)
        cosines = [steps[i] @ steps[j] / norms[i] / norms[j] for i, j in pairs]
        both = [(steps[i] != 0) & (steps[j] != 0) for i, j in pairs]
        agree = [np.mean(np.sign(steps[i])[m] == np.sign(steps[j])[m]) for (i, j), m in zip(pairs, both, strict=True)]
        row = by_name[name]
        assert row["cosine_mean"] == pytest.approx(np.mean(cosines), rel=1e-9)
        assert row["cosine_least"] == pytest.approx(min(cosines), rel=1e-9)
        assert row["sign_agreement"] == pytest.approx(np.mean(agree), rel=1e-12)
        assert [row[f"length {label}"] for label in "abcd"[:count]] == pytest.approx(norms, rel=1e-12)
        assert row["kept_linear"] == pytest.approx(np.linalg.norm(steps.mean(0)) / norms.mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "base", "parameters"),
    [
        ("linear", "none", {}),
        ("task_arithmetic", "none", {"scale": 1.7}),
        ("multislerp", "none", {}),
        ("multislerp", "base", {}),
        ("karcher", "base", {}),
        ("model_stock", "none", {}),
    ],
)
def test_the_recipe_s_effect_is_what_merging_gives(draw, method, base, parameters):
    start, *members = random_models(3, size=300)
    seen = draw(start, *members)
    config = MergeConfig(method=method, base=base, parameters=parameters)
    recipe = resolve(config, [MemberRef(name, "", name, 0) for name in seen.members])
    row = table(seen, recipe)[-1]
    pieces = [
        merged(METHODS[method], [one[key] for one in members], start[key] if recipe.uses_base else None, **parameters)
        - start[key]
        for key in KEYS
    ]
    mean = np.mean([np.linalg.norm(flat(one, KEYS) - flat(start, KEYS)) for one in members])
    assert row["kept_recipe"] == pytest.approx(float(torch.cat(pieces).norm()) / mean, rel=1e-7)


def test_the_elected_length_is_that_of_ties_without_trimming(draw):
    base, *members = random_models(3, size=300)
    row = table(draw(base, *members))[-1]
    pieces = [
        merged(METHODS["ties"], [one[key] for one in members], base[key], density=1.0) - base[key] for key in KEYS
    ]
    mean = np.mean([np.linalg.norm(flat(one, KEYS) - flat(base, KEYS)) for one in members])
    assert row["kept_sign_election"] == pytest.approx(float(torch.cat(pieces).norm()) / mean, rel=1e-9)


def test_methods_without_coefficients_have_no_predicted_effect(draw):
    base, *members = random_models(2, size=50)
    seen = draw(base, *members)
    refs = [MemberRef(name, "", name, 0) for name in seen.members]
    for config in (MergeConfig(method="ties"), MergeConfig(method="nuslerp", parameters={"granularity": "row"})):
        assert "kept_recipe" not in table(seen, resolve(config, refs))[-1]


def test_without_a_base_the_weights_are_compared(draw):
    one = {"embeddings.w": torch.ones(1000, dtype=torch.float64)}
    other = {"embeddings.w": one["embeddings.w"].clone()}
    other["embeddings.w"][0] += 1e-5
    (row, _) = table(draw(None, one, other))
    assert row["angle_most"] == pytest.approx(math.degrees(1e-5 * math.sqrt(999) / 1000), rel=1e-4)
    assert row["cosine_mean"] == pytest.approx(1)
    assert not {"sign_agreement", "kept_linear", "base_length", "unchanged"} & set(row)


def test_tensors_that_nobody_changed_are_counted_and_have_no_cosine(draw):
    base = {"embeddings.w": torch.ones(4), "encoder.layer.0.w": torch.ones(4)}
    moved = {**base, "encoder.layer.0.w": torch.tensor([2.0, 1.0, 1.0, 1.0])}
    rows = table(draw(base, moved, moved))
    assert [(row["unchanged"], row["cosine_mean"]) for row in rows] == [(1, None), (0, 1.0), (1, 1.0)]
    assert rows[0]["relative_length"] == 0 and "kept_linear" not in rows[0]
    assert [rows[1][f"kept_{name}"] for name in ("linear", "multislerp", "sign_election")] == pytest.approx([1, 1, 1])


def test_one_member_has_lengths_and_no_pairs(draw):
    base, one = random_models(1, size=40)
    seen = draw(base, one)
    row = table(seen)[-1]
    assert (row["cosine_mean"], row["cosine_least"], row["angle_most"]) == (None, None, None)
    assert row["kept_linear"] == pytest.approx(1) and pair_rows(seen) == []


def test_empty_and_one_element_tensors(draw):
    base = {"embeddings.w": torch.zeros(0), "norm.weight": torch.zeros(1)}
    seen = draw(base, base | {"norm.weight": torch.ones(1)}, base | {"norm.weight": -torch.ones(1)})
    rows = {row["group"]: row for row in tensor_rows(seen)}
    assert rows["embeddings.w"]["parameters"] == 0
    assert rows["norm.weight"]["cosine_mean"] == pytest.approx(-1) and rows["norm.weight"]["sign_agreement"] == 0


def test_pairs_and_tensors_have_rows_of_their_own(draw):
    base, *members = random_models(3, size=40)
    seen = draw(base, *members)
    rows = pair_rows(seen)
    assert len(rows) == 5 * 3 and {(row["one"], row["other"]) for row in rows} == {("a", "b"), ("a", "c"), ("b", "c")}
    whole = table(seen)[-1]
    assert np.mean([row["cosine"] for row in rows if row["group"] == WHOLE]) == pytest.approx(whole["cosine_mean"])
    assert [row["group"] for row in tensor_rows(seen)][: len(KEYS)] == sorted(KEYS)


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("embeddings.word_embeddings.weight", EMBEDDINGS),
        ("model.embed_tokens.weight", EMBEDDINGS),
        ("wte.weight", EMBEDDINGS),
        ("encoder.layer.11.output.dense.weight", "layer 11"),
        ("layers.3.mlp.up_proj.weight", "layer 3"),
        ("2_Dense/linear.weight", OTHER),
        ("norm.weight", OTHER),
        ("pooler.dense.bias", OTHER),
    ],
)
def test_groups_by_name(key, group):
    assert group_of(key) == group


def test_layers_are_in_their_order(draw):
    base = {f"layers.{number}.w": torch.ones(2) for number in range(12)} | {"norm.weight": torch.ones(2)}
    names = [group.name for group in groups(draw(base, base))]
    assert names == [*(f"layer {number}" for number in range(12)), OTHER, WHOLE]


def test_it_is_gathered_once_and_kept(tmp_path, write_model, ref, monkeypatch):
    store = Store(tmp_path / "store")
    base, *members = random_models(2, size=20)
    refs = [ref(write_model(name, one)) for name, one in zip("ab", members, strict=True)]
    inputs = MergeInputs(refs, ref(write_model("base", base)))
    events: list[Event] = []
    seen = gather_portrait(portrait_job(store, inputs, LINEAR), events.append)
    assert events[-1].done == events[-1].total == sum(tensor.nbytes for tensor in base.values())

    def refuse(*_: object) -> None:
        raise AssertionError("it was gathered again")

    monkeypatch.setattr(portrait_module, "on_cluster", refuse)
    again = portrait(store, inputs, MergeConfig(method="ties"))
    assert table(again) == table(seen) and pair_rows(again) == pair_rows(seen)
    turned = MergeInputs(refs[::-1], inputs.base)
    assert find_portrait(portrait_job(store, turned, LINEAR)) is None, "matrices are in the members' order"


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(tmp_path, write_model, ref, threads):
    base, *members = random_models(2, size=200_000)
    refs = [ref(write_model(name, one)) for name, one in zip("ab", members, strict=True)]
    inputs = MergeInputs(refs, ref(write_model("base", base)))
    rows = [
        table(gather_portrait(portrait_job(Store(tmp_path / str(cpus)), inputs, MergeConfig(cpus=cpus))))
        for cpus in (1, threads)
    ]
    assert rows[0] == rows[1]


def test_a_member_with_nan_is_named(draw):
    base, one, other = random_models(2, size=10)
    other[KEYS[0]][3] = torch.nan
    with pytest.raises(MergeError, match=r"embeddings.word.weight of b .* holds NaN"):
        draw(base, one, other)


def test_signs_of_a_strip_by_hand():
    rows = torch.tensor([[1.0, -1.0, 0.0, 2.0, -3.0], [2.0, 1.0, 5.0, 0.0, 3.0], [-1.0, -2.0, 0.0, 0.0, 0.0]])
    signs = count_signs(Strip(0, rows.clone()))
    assert signs.same.tolist() == [[4, 1, 1], [1, 4, 0], [1, 0, 2]]
    assert signs.both.tolist() == [[4, 3, 2], [3, 4, 2], [2, 2, 2]]
    assert signs.elected == pytest.approx(1.5**2 + 1.5**2 + 5**2 + 2**2 + 0), "a sum of zero elects nobody"
