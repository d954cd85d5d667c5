from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from boom_ray.errors import MergeError
from boom_ray.merging.probe.sums import ActivationSums, FisherSums, equal_lengths
from boom_ray.model.losses.policy import Facts, Matryoshka, Policy, step_loss
from boom_ray.model.texts import padded
from tests.merging.probe.world import LOSS

CPU = torch.device("cpu")


@pytest.fixture
def running(world):
    return world.source("a").load(world.store, CPU)


@pytest.fixture
def batches(world):
    sample = world.sample().open(world.store, LOSS.negatives)
    return [sample.batch(index) for index in range(len(sample))]


def plain_gradients(running, batch) -> dict[str, torch.Tensor]:
    """Gradient of the step's mean loss by one ordinary forward pass over everything."""
    vectors = running.encoder(padded(batch.texts, running.encoder.pad_id))[batch.index]
    masks = ("positives", "duplicates", "labels")
    is_long = batch.dataset == "long"
    policy = Policy("infonce", LOSS.temperature, is_long, ("query_to_passage",), "joint", masks, None, 1.0, 0.0)
    loss = step_loss(vectors, Facts.of(batch), policy)
    parameters = running.trainable()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {key: gradient for key, gradient in zip(parameters, found, strict=True) if gradient is not None}


def test_fisher_is_the_square_of_summed_gradients_per_step(world, running, batches):
    sums = FisherSums(running, world.loss)
    sums.add(batches)
    assert sums.count == sum(batch.size for batch in batches) == 20
    expected: dict[str, torch.Tensor] = {}
    for batch in batches:
        for key, gradient in plain_gradients(running, batch).items():
            expected[key] = expected.get(key, 0) + (batch.size * gradient) ** 2
    assert len(expected) > 10
    for key, value in sums.tensors.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-6 * float(expected[key].max()) + 1e-12)
    assert all(one.grad is None for one in running.trainable().values())


def test_members_that_can_be_cut_are_looked_at_with_the_loss_of_every_width(world, running, batches):
    widths = Matryoshka((16, 4), (1.0, 0.5))
    loss, batch = world.sample().step_loss(replace(LOSS, matryoshka=widths)), batches[0]
    vectors = running.encoder(padded(batch.texts, running.encoder.pad_id))[batch.index]
    expected = step_loss(vectors, Facts.of(batch), loss.policies[batch.dataset], widths).item()
    assert loss.value(running.encoder, batch) == pytest.approx(expected, rel=1e-5)
    assert loss.backward(running.encoder, batch) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(world.loss.value(running.encoder, batch), rel=1e-2)
    running.encoder.zero_grad()


def test_fisher_of_single_examples_is_the_mean_square_of_their_gradients(world, running):
    sample = world.sample(examples=6, batch=2).open(world.store, LOSS.negatives)
    steps = [replace(step, rows=step.rows[:1]) for step in sample.steps]
    batches = [sample.reader.read(step) for step in steps]
    sums = FisherSums(running, world.loss)
    sums.add(batches)
    gradients = [plain_gradients(running, batch) for batch in batches]
    key = next(key for key in gradients[0] if key.endswith("query.weight"))
    mean = torch.stack([one[key] ** 2 for one in gradients]).mean(0)
    torch.testing.assert_close(sums.tensors[key] / sums.count, mean, rtol=1e-3, atol=1e-6 * float(mean.max()))


def test_a_loss_that_is_not_finite_names_the_dataset(world, running, batches):
    with torch.no_grad():
        next(iter(running.trainable().values())).fill_(float("nan"))
    sums = FisherSums(running, world.loss)
    with pytest.raises(MergeError, match=rf"dataset {batches[0].dataset} is nan"):
        sums.add(batches)


def test_activations_are_products_of_the_tokens_that_reach_each_layer(world, running, batches):
    sums = ActivationSums(running, world.loss)
    sums.add(batches)
    inputs: dict[str, list[torch.Tensor]] = {}
    layers = {
        module: name
        for name, module in running.encoder.transformer.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
    }
    sums.close()
    hooks = [
        module.register_forward_hook(lambda m, args, _: inputs.setdefault(layers[m], []).append(args[0][0]))
        for module in layers
    ]
    texts = [text for batch in batches for text in batch.texts]
    with torch.no_grad():
        for text in texts:  # one text at a time: no padding whatever
            running.encoder(padded([text], running.encoder.pad_id))
    for hook in hooks:
        hook.remove()
    assert sums.count == sum(len(text) for text in texts)
    assert {running.keys[f"transformer.{name}.weight"] for name in inputs} == set(sums.tensors)
    for name, rows in inputs.items():
        whole = torch.cat(rows).double()
        torch.testing.assert_close(
            sums.tensors[running.keys[f"transformer.{name}.weight"]].double(), whole.T @ whole, rtol=1e-4, atol=1e-2
        )


def test_layers_that_no_token_reaches_are_left_out(world, running, batches):
    sums = ActivationSums(running, world.loss)
    assert not any("pooler" in key or "embeddings" in key for key in sums.tensors)
    running.encoder.transformer.unused = nn.Linear(2, 2)
    sums.add(batches[:1])
    assert len(sums.tensors) == 6  # query, key, value, output, and both of the feed-forward layer


def test_groups_of_one_length_hold_every_text_once():
    texts = [np.full(length, place) for place, length in enumerate([3, 5, 3, 3, 1, 5, 3])]
    groups = list(equal_lengths(texts, tokens=9))
    assert [[len(text) for text in group] for group in groups] == [[5], [5], [3, 3, 3], [3], [1]]
    assert sorted(int(text[0]) for group in groups for text in group) == list(range(7))


def test_hooks_are_taken_out(world, running, batches):
    sums = ActivationSums(running, world.loss)
    sums.close()
    sums.add(batches[:1])
    assert not sums.tensors
