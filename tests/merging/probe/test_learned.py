from __future__ import annotations

import pytest
import torch
from torch import nn

from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.methods.positioning import chain
from boom_ray.merging.probe.learned import Position, learn

SHAPES = {"matrix": (3, 4), "vector": (5,)}


def draw(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in SHAPES.items()}


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensors[key].reshape(-1) for key in SHAPES])


class Bowl:
    """loss = |θ - goal|² / 2 over two parameters; a model without any data."""

    def __init__(self, goal: torch.Tensor) -> None:
        self.goal = goal
        self.parameters = {key: nn.Parameter(value) for key, value in draw(9).items()}

    def __call__(self, batch: object) -> float:
        theta = torch.cat([self.parameters[key].reshape(-1) for key in SHAPES])
        loss = ((theta - self.goal) ** 2).sum() / 2
        loss.backward()
        return float(loss.detach())


def settings(**values: float) -> ProbeConfig:
    return ProbeConfig.model_validate({"penalty": 0.0, **values})


def test_moving_and_slopes():
    base, first, second = draw(0), draw(1), draw(2)
    bowl = Bowl(flat(draw(3)))
    position = Position(bowl.parameters, base, [first, second])
    position.move([0.5, -2.0])
    theta = flat(base) + 0.5 * flat(first) - 2 * flat(second)
    torch.testing.assert_close(flat(bowl.parameters), theta)
    bowl(None)
    slopes = position.slopes()
    expected = [float((theta - bowl.goal) @ flat(one)) for one in (first, second)]
    torch.testing.assert_close(slopes, torch.tensor(expected, dtype=torch.float64))
    assert all(one.grad is None for one in bowl.parameters.values())
    vectors = torch.stack([flat(first), flat(second)])
    torch.testing.assert_close(position.gram, vectors @ vectors.T)


def test_gradients_equal_finite_differences(monkeypatch):
    base, members = draw(0), [draw(seed) for seed in (1, 2, 3)]
    bowl = Bowl(flat(draw(4)))
    vectors = torch.stack([flat(one) for one in members])
    seen: list[torch.Tensor] = []

    class Watch(torch.optim.Adam):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["params"][0].grad.clone())
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watch)
    learn(Position(bowl.parameters, base, members), 3, [None], bowl, settings(steps=1, penalty=0.3))

    def objective(logs: torch.Tensor) -> float:
        coefficients = logs[-1].exp() * chain(vectors @ vectors.T, logs[:-1].exp())
        return float(((flat(base) + coefficients @ vectors - bowl.goal) ** 2).sum() / 2 + 0.3 * logs[-1].exp())

    ways = 1e-5 * torch.eye(4, dtype=torch.float64)
    expected = torch.tensor([(objective(way) - objective(-way)) / 2e-5 for way in ways], dtype=torch.float64)
    torch.testing.assert_close(seen[0], expected, rtol=1e-6, atol=1e-7)


def test_weights_go_to_the_member_that_fits():
    base, good, bad = draw(0), draw(1), draw(2)
    goal = flat(base) + flat(good)
    found = learn(Position((bowl := Bowl(goal)).parameters, base, [bad, good]), 2, [None], bowl, settings(steps=300))
    assert found.weights[1] > 0.95
    assert found.scale == pytest.approx(1.0, abs=0.1)
    assert found.curve[-1] < 0.05 * found.curve[0]
    assert len(found.curve) == 300


def test_a_single_member_has_only_its_scale():
    base, only = draw(0), draw(1)
    bowl = Bowl(flat(base) + 0.4 * flat(only))
    found = learn(Position(bowl.parameters, base, [only]), 1, [None], bowl, settings(steps=400))
    assert found.weights == (1.0,)
    assert found.scale == pytest.approx(0.4, rel=1e-2)


def test_a_penalty_shortens_the_difference():
    base, only = draw(0), draw(1)
    length = float(flat(only) @ flat(only))
    bowl = Bowl(flat(base) + flat(only))
    position = Position(bowl.parameters, base, [only])
    found = learn(position, 1, [None], bowl, settings(steps=400, penalty=0.5 * length))
    assert found.scale == pytest.approx(0.5, rel=1e-2)  # of length/2 (1 - λ)² + penalty λ


def test_the_same_inputs_give_the_same_numbers_and_batches_come_in_turn():
    base, members = draw(0), [draw(1), draw(2)]
    seen: list[int] = []

    def run():
        bowl = Bowl(flat(draw(3)))

        def loss(batch: int) -> float:
            seen.append(batch)
            return bowl(batch)

        return learn(Position(bowl.parameters, base, members), 2, [7, 8, 9], loss, settings(steps=5))

    assert run() == run()
    assert seen == [7, 8, 9, 7, 8] * 2


def test_a_loss_that_is_not_finite_is_an_error():
    base, only = draw(0), draw(1)
    bowl = Bowl(flat(base) * float("nan"))
    with pytest.raises(MergeError, match="step 0 has loss nan"):
        learn(Position(bowl.parameters, base, [only]), 1, [None], bowl, settings(steps=3))
