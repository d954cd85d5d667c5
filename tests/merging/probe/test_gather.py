from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError, ModelError
from boom_ray.merging.probe.actors import actor_count
from boom_ray.merging.probe.gather import (
    ACTIVATIONS,
    FISHER,
    WEIGHTS,
    GatherJob,
    Resources,
    gather_activations,
    gather_fisher,
    gather_here,
)
from boom_ray.merging.probe.sums import ActivationSums, FisherSums
from boom_ray.merging.reading.checkpoint import open_checkpoint, open_weights
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from tests.merging.probe.world import LOSS, MODEL
from tests.tiny_model import make_tiny_model

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("kind", [FISHER, ACTIVATIONS])


def job(world, kind: str, member: str = "a", **sample) -> GatherJob:
    return GatherJob(kind, world.source(member), world.sample(**sample), LOSS)


def tensors(artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.local() / WEIGHTS / "model.safetensors")


@BOTH
def test_shards_add_up_to_one_pass_over_the_sample(world, kind):
    artifact = gather_here(world.store, job(world, kind, examples=36, batch=3))
    assert artifact.figures["steps"] == 12
    assert artifact.figures["examples"] == {"long": 30, "short": 6}
    running = world.source("a").load(world.store, CPU)
    sums = (FisherSums if kind == FISHER else ActivationSums)(running, world.loss)
    sample = world.sample(examples=36, batch=3).open(world.store, LOSS.negatives)
    sums.add(sample.batch(index) for index in range(len(sample)))
    found = tensors(artifact)
    assert found.keys() == sums.tensors.keys()
    assert artifact.figures["count"] == sums.count
    assert artifact.figures["tensors"] == len(found)
    for key, value in found.items():
        torch.testing.assert_close(value, sums.tensors[key] / sums.count, rtol=1e-4, atol=1e-7 * float(value.max()))
    if kind == FISHER:
        assert artifact.figures["loss"] == pytest.approx(sums.loss / sums.count)


def test_tensors_are_named_as_the_members(world):
    artifact = gather_here(world.store, job(world, FISHER))
    folder = world.store.resolve(artifact.place(WEIGHTS))
    with open_weights(folder, "a") as fisher, open_checkpoint(world.folder / "a", "a") as member:
        assert fisher.tensors.keys() < member.tensors.keys()
        assert all(info.shape == member.tensors[key].shape for key, info in fisher.tensors.items())
        assert all("pooler" in key for key in member.tensors.keys() - fisher.tensors.keys())


def test_what_exists_is_not_computed_again(world, monkeypatch):
    first = gather_here(world.store, job(world, FISHER))
    monkeypatch.setattr("boom_ray.merging.probe.gather.Gatherer", None)
    events = []
    assert gather_here(world.store, job(world, FISHER), events.append) == first
    assert [event.note for event in events] == ["cached"]


def test_keys_hold_what_decides_the_content_and_nothing_else(world):
    keys = {
        (kind, name): (one.spec(world.store), one.inputs(world.store))
        for kind in (FISHER, ACTIVATIONS)
        for name, one in {
            "same": job(world, kind),
            "seed": job(world, kind, seed=1),
            "steps": job(world, kind, steps=7, penalty=0.5),
            "member": job(world, kind, "b"),
            "temperature": GatherJob(kind, world.source("a"), world.sample(), LOSS.__class__(0.3, 2)),
            "tokens": GatherJob(kind, world.source("a"), world.sample(), LOSS.__class__(0.2, 2, "float32", 128)),
        }.items()
    }
    for kind in (FISHER, ACTIVATIONS):
        same = keys[kind, "same"]
        assert keys[kind, "steps"] == same == keys[kind, "tokens"]
        assert keys[kind, "seed"] != same != keys[kind, "member"]
        assert (keys[kind, "temperature"] != same) == (kind == FISHER)


def test_damaged_members_are_named(world, tmp_path):
    folder = make_tiny_model(tmp_path / "broken", hidden=16, layers=1)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ref = MemberRef("broken", str(folder), weights_fingerprint(folder), 1)
    for kind, text in ((FISHER, "broken: The loss on dataset"), (ACTIVATIONS, "broken: What was gathered for tensor")):
        source = world.source("a").__class__(ref, None, MODEL)
        if kind == ACTIVATIONS:
            weights["embeddings.LayerNorm.bias"][0] = float("inf")
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(MergeError, match=text):
            gather_here(world.store, GatherJob(kind, source, world.sample(), LOSS))
        assert not list((world.folder / "store" / kind).glob(".draft*"))


@BOTH
def test_a_remote_store_gives_the_same_bytes(world, kind):
    local = gather_here(world.store, job(world, kind))
    remote = Store("memory://probe-tests")
    for kind_of, place in [(world.corpus.kind, world.corpus)] + [
        ("part", world.store.get("part", key)) for keys in world.corpus.figures["parts"].values() for key in keys
    ]:
        draft = remote.draft(kind_of, place.key)
        for name in place.files:
            (draft.path / name).write_bytes((place.local() / name).read_bytes())
        draft.figures = place.figures
        remote.commit(draft, kind_of, place.key, place.spec, place.inputs)
    other = gather_here(remote, job(world, kind))
    assert other.key == local.key
    for key, value in tensors(other).items():
        assert torch.equal(value, tensors(local)[key])
    assert not remote.fs.glob("probe-tests/staging/*")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "actors"), [(FISHER, 2), (ACTIVATIONS, 1)])
def test_actors_write_the_same_bytes_as_one_process(world, ray_cluster, kind, actors, tmp_path):
    here = gather_here(world.store, job(world, kind, examples=36, batch=3))
    gather = gather_fisher if kind == FISHER else gather_activations
    store = Store(tmp_path)
    (tmp_path / "part").symlink_to(world.folder / "store" / "part")
    events = []
    probe = ProbeConfig(examples=36, batch=3)
    found = gather(store, world.ref("a"), world.corpus, probe, MODEL, LOSS, events.append, Resources(0, actors))
    assert found.key == here.key
    ours, theirs = (one.local() / WEIGHTS / "model.safetensors" for one in (found, here))
    assert ours.read_bytes() == theirs.read_bytes()
    assert [event.done for event in events] == list(range(9))


@pytest.mark.ray
def test_errors_come_back_from_actors_as_they_are(world, ray_cluster, tmp_path):
    folder = make_tiny_model(tmp_path / "member", hidden=16, layers=1)
    ref = MemberRef("member", str(folder), "x", 1)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises((MergeError, ModelError), match="safetensors"):
        gather_fisher(world.store, ref, world.corpus, ProbeConfig(), MODEL, LOSS)
    with pytest.raises(MergeError, match=r"No node of the cluster has 1 CPU and 3 GPUs"):
        actor_count(world.store, job(world, FISHER), 8, Resources(gpus=3))
