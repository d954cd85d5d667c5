from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.probe import task
from boom_ray.merging.probe.weights import WeightsJob, learn_weights, learn_weights_here
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.encoder import load_encoder
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from tests.merging.probe.world import LOSS, MODEL, World


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory) -> dict[str, MemberRef]:
    """A member that was trained on the probe sample, and one that was trained against it; both from ``a``."""
    sample = world.sample(examples=24, batch=8).open(world.store, LOSS.negatives)
    return {
        name: train(world, tmp_path_factory.mktemp(name), name, sample, direction)
        for name, direction in (("good", -1.0), ("bad", 1.0))
    }


def train(world: World, folder: Path, name: str, sample, direction: float) -> MemberRef:
    target = shutil.copytree(world.folder / "a", folder / "model")
    encoder = load_encoder(target, MODEL, dropout=0.0)
    for turn in range(6):
        world.loss.backward(encoder, sample.batch(turn % len(sample)))
        with torch.no_grad():
            for parameter in encoder.trainable().values():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=direction * 0.05)
                    parameter.grad = None
    weights = load_file(target / "model.safetensors")
    weights |= {
        key: value.detach().clone() for key, value in encoder.transformer.state_dict().items() if key in weights
    }
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return MemberRef(name, str(target), weights_fingerprint(target), 1)


def job(world: World, members, **probe: float) -> WeightsJob:
    sample = world.sample(examples=24, batch=8, **probe)
    return WeightsJob(tuple(members), world.ref("a"), sample, MODEL, LOSS)


def test_weights_move_to_the_member_that_fits_and_the_loss_falls(world, trained):
    members = [trained["bad"], trained["good"]]
    events = []
    artifact = learn_weights_here(
        world.store, job(world, members, steps=30, learning_rate=0.1, penalty=0.0), events.append
    )
    figures = artifact.figures
    assert sum(figures["weights"]) == pytest.approx(1.0)
    assert figures["weights"][1] > 0.7
    assert figures["loss_after"] < figures["loss_before"]
    assert len(figures["curve"]) == 30
    assert figures["examples"] == {"long": 18, "short": 6}
    assert [event.done for event in events] == list(range(1, 31))
    assert events[-1].figures["loss"] == figures["curve"][-1]


def test_the_same_job_gives_the_same_numbers(world, trained, tmp_path):
    one = job(world, [trained["good"], trained["bad"]], steps=3)
    (tmp_path / "part").symlink_to(world.folder / "store" / "part")
    found = [learn_weights_here(store, one).figures for store in (world.store, Store(tmp_path))]
    for name in ("weights", "scale", "curve", "loss_before", "loss_after"):
        assert found[0][name] == found[1][name]
    assert found[0]["weights"] != found[0]["weights"][::-1]


def test_the_first_loss_is_that_of_the_merged_model(world, trained):
    """One member, scale 1: the live model must be that member."""
    artifact = learn_weights_here(world.store, job(world, [trained["good"]], steps=1))
    sample = world.sample(examples=24, batch=8).open(world.store, LOSS.negatives)
    encoder = load_encoder(Path(trained["good"].path), MODEL, dropout=0.0).eval()
    losses = [world.loss.value(encoder, sample.batch(index)) for index in range(len(sample))]
    assert artifact.figures["curve"][0] == pytest.approx(losses[0], rel=1e-4)
    sizes = [len(step.rows) for step in sample.steps]
    mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    assert artifact.figures["loss_before"] == pytest.approx(mean, rel=1e-4)
    assert artifact.figures["weights"] == [1.0]


def test_order_of_members_and_what_is_learned_with_are_in_the_key(world, trained):
    one = job(world, trained.values())
    assert one.inputs() != replace(one, members=one.members[::-1]).inputs()
    assert one.spec(world.store) != job(world, trained.values(), steps=7).spec(world.store)
    assert one.spec(world.store) == replace(one, loss=replace(LOSS, micro_batch_tokens=64)).spec(world.store)


def test_no_members_and_too_many_are_errors(world, monkeypatch):
    probe = ProbeConfig(examples=24, batch=8)
    with pytest.raises(MergeError, match="no member was given"):
        learn_weights(world.store, [], world.ref("a"), world.corpus, probe, MODEL, LOSS)
    monkeypatch.setattr(task, "nodes_resources", lambda wait_s: [{"CPU": 2.0, "GPU": 0.0, "memory_gb": 1e-5}])
    with pytest.raises(MergeError, match=r"and 1 members in memory: .* largest node of the cluster has 0.0 GiB"):
        learn_weights(world.store, [world.ref("b")], world.ref("a"), world.corpus, probe, MODEL, LOSS)
    with pytest.raises(MergeError, match="No node of the cluster has the 4 CPUs"):
        learn_weights(world.store, [world.ref("b")], world.ref("a"), world.corpus, probe, MODEL, LOSS, cpus=4)


@pytest.mark.ray
def test_a_task_learns_the_same_as_this_process(world, trained, ray_cluster, tmp_path):
    probe = ProbeConfig(examples=24, batch=8, steps=4)
    (tmp_path / "part").symlink_to(world.folder / "store" / "part")
    members, events = [trained["good"], trained["bad"]], []
    found = learn_weights(Store(tmp_path), members, world.ref("a"), world.corpus, probe, MODEL, LOSS, events.append)
    here = learn_weights_here(world.store, job(world, members, steps=4))
    assert found.key == here.key
    assert found.figures["weights"] == pytest.approx(here.figures["weights"], rel=1e-5)
    assert [event.done for event in events] == [1, 2, 3, 4]
    again = learn_weights(Store(tmp_path), members, world.ref("a"), world.corpus, probe, MODEL, LOSS, events.append)
    assert again == found
    assert events[-1].note == "cached"
