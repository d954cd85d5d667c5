"""What was gathered, read by a merge on disk: names, folders and types fit together."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from boom_ray.config import MergeConfig
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.probe.gather import ACTIVATIONS, FISHER, WEIGHTS, GatherJob, gather_here
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from tests.merging.probe.world import LOSS

MEMBERS = ("a", "b")


@pytest.fixture(scope="module")
def gathered(world):
    def gather(kind: str) -> list[MemberRef]:
        refs = []
        for name in MEMBERS:
            found = gather_here(world.store, GatherJob(kind, world.source(name), world.sample(), LOSS))
            refs.append(MemberRef(name, found.place(WEIGHTS), found.fingerprint, 1))
        return refs

    return {kind: gather(kind) for kind in (FISHER, ACTIVATIONS)}


def stored(world, refs) -> list[dict[str, torch.Tensor]]:
    return [load_file(world.store.resolve(ref.path) / "model.safetensors") for ref in refs]


def test_fisher_and_regmean_merge_with_what_was_gathered(world, gathered):
    members = [world.ref(name) for name in MEMBERS]
    one, two = stored(world, members)
    plain = {key: (one[key].double() + two[key].double()) / 2 for key in one}
    for method, kind in (("fisher", FISHER), ("regmean", ACTIVATIONS)):
        inputs = MergeInputs(members, **{kind: gathered[kind]})
        artifact = merge_here(MergeJob(world.store, inputs, MergeConfig(method=method)))
        merged = load_file(artifact.local() / MODEL / "model.safetensors")
        known = stored(world, gathered[kind])
        assert merged.keys() == plain.keys()
        for key, value in merged.items():
            expected = plain[key]
            if key in known[0] and kind == FISHER:
                first, second = (each[key].double() for each in known)
                mixed = (first * one[key].double() + second * two[key].double()) / (first + second)
                expected = torch.where(first + second > 0, mixed, expected)
            elif key in known[0]:
                first, second = (each[key].double() for each in known)
                shrunk = [0.9 * each + 0.1 * torch.diag(each.diagonal()) for each in (first, second)]
                both = one[key].double() @ shrunk[0] + two[key].double() @ shrunk[1]
                expected = both @ torch.linalg.inv(shrunk[0] + shrunk[1])
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
        changed = sum(not torch.allclose(value.double(), plain[key], atol=1e-3) for key, value in merged.items())
        assert changed >= 6
