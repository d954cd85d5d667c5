"""The training loop of one worker; no Ray in it.

A step: one forward pass over all texts of the worker's slice, sorted by length and cut into micro-batches; embeddings
gathered from all workers; the whole loss on every worker; gradients back through the micro-batches; gradients summed.
The result does not depend on the number of workers beyond rounding.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.artifacts.plan import Stage
from boom_ray.config import TrainingConfig
from boom_ray.hashing import stream_key
from boom_ray.model.encoder import Encoder
from boom_ray.model.layout import set_layout
from boom_ray.model.losses.policy import Matryoshka, Policy, policy_of_step
from boom_ray.model.steps import Hooks, StepSettings, Work, backward
from boom_ray.training.average import snapshot_updates
from boom_ray.training.course import Course
from boom_ray.training.flops import Flops, peak_flops
from boom_ray.training.group import Group
from boom_ray.training.guard import Guard
from boom_ray.training.memory import step_settings
from boom_ray.training.meter import Meter
from boom_ray.training.optimizer import make_optimizer, parameter_groups, set_rate
from boom_ray.training.reader import read_ahead
from boom_ray.training.state import Progress
from boom_ray.training.weights import Replicated, Weights

TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BYTES_GRADIENT, BYTES_MOMENTS, BYTES_WEIGHT, BYTES_SUM = 4, 8, 4, 8  # per trained weight


@dataclass(frozen=True)
class Plan:
    """What a member is trained on, as one worker sees it.

    Attributes:
        steps: number of steps.
        batch: step to this worker's batch; called ahead of time from another thread.
        policies: dataset to its loss.
        longest: longest text, for estimates of memory; tokens.
        stop: end after so many steps, at an update, as if the run were cut off there; None: after all.
        stages: what the steps are divided into for the learning rate, see `Course`; empty: one.
    """

    steps: int
    batch: Callable[[int], Batch]
    policies: Mapping[str, Policy]
    longest: int = 512
    stop: int | None = None
    stages: tuple[Stage, ...] = ()

    @property
    def end(self) -> int:
        """Steps that are trained."""
        return self.steps if self.stop is None else self.stop

    def course(self, config: TrainingConfig) -> Course:
        """The updates of all steps."""
        return Course(self.steps, self.stages, config)


@dataclass(frozen=True)
class Listeners:
    """Who hears of progress.

    Attributes:
        log: called with (finished steps, figures) every ``log_every`` steps and after the plan's last.
        update: called with the finished steps after every update but the plan's last: the place for checkpoints.
    """

    log: Callable[[int, dict[str, float]], None]
    update: Callable[[int], None]


class Loop:
    """Trains an encoder on the steps of a plan.

    Args:
        encoder: the model in float32, on its device; its weights are taken over.
        plan: the steps.
        config: how to train.
        seed: seed of dropout.
        group: this worker's place.
    """

    def __init__(self, encoder: Encoder, plan: Plan, config: TrainingConfig, seed: int, group: Group) -> None:
        """Set up weights, optimiser and the form of texts; nothing is trained yet."""
        self.encoder, self.plan, self.config = encoder.train(), plan, config
        self.seed, self.group = seed, group
        self.flops = Flops(encoder)
        check(encoder, config)
        groups = parameter_groups(encoder, config)
        self._is_random = config.dropout != 0 or any(
            isinstance(module, torch.nn.Dropout) and module.p > 0 for module in encoder.modules()
        )
        trained = sum(parameter.numel() for parameter in encoder.trainable().values())
        precision = TYPES[config.precision]
        self.snapshots = snapshot_updates(plan.course(config).updates, config.average_last)
        averaged = torch.float64 if self.snapshots else torch.float32 if config.ema is not None else None
        self.weights: Weights
        if config.parallelism == "fsdp" and group.workers > 1:
            from boom_ray.training.sharded import Sharded

            share = -(-trained // group.workers)
            self.settings = self._form(share * BYTES_GRADIENT + self._to_come(share), precision != torch.float32)
            self.weights = Sharded(encoder, groups, precision, group, averaged)
        else:
            self.weights = Replicated(encoder, groups, precision, group, averaged)
            self.settings = self._form(self._to_come(trained), False)
        self.optimizer = make_optimizer(self.weights.optimizer_groups(), config)
        self.progress = Progress()
        self.guard = Guard(config, encoder.device)
        self.meter = Meter(encoder.device, group.workers, peak_flops(encoder.device))
        self.matryoshka = Matryoshka.of(config.matryoshka)

    def _to_come(self, weights: int) -> int:
        """Bytes that so many weights' moments will take, and on CPUs the copies of checkpoints and scores."""
        config, each = self.config, BYTES_MOMENTS
        if self.encoder.device.type == "cpu":
            has_checkpoints = config.checkpoint_every is not None or config.checkpoint_minutes is not None
            averages = BYTES_WEIGHT * (config.ema is not None) + BYTES_SUM * (config.average_last is not None)
            each += (BYTES_WEIGHT + BYTES_MOMENTS + averages) * has_checkpoints
            each += BYTES_WEIGHT * (config.scores is not None)
        return weights * each

    def _form(self, held: int, autocast: bool) -> StepSettings:
        """Choose the form of texts and what a step keeps, and have the blocks compiled.

        Args:
            held: bytes that gradients and moments will still take.
            autocast: the weights are float32 still and will be computed with in bfloat16.
        """
        layout = set_layout(self.encoder, self.config.attention, autocast)
        settings = step_settings(self.encoder, layout, self.config, self.plan.longest, held, autocast, self._is_random)
        if self.config.compile or (self.config.compile is None and self.encoder.device.type == "cuda"):
            for block in self.encoder.blocks():
                block.compile(dynamic=True)
        return settings

    def run(self, listeners: Listeners) -> None:
        """Train from the progress made so far to the plan's end.

        Raises:
            TrainingError: the loss or a gradient is not finite; names step, dataset and examples.
        """
        self.encoder.train()
        self.guard = Guard(self.config, self.encoder.device, self.progress.losses)
        self.meter.clear(self.progress.unlogged)
        steps, course = self.plan.steps, self.plan.course(self.config)
        logged = self.progress.step // self.config.log_every
        self.meter.watch.mark("data")
        reading = read_ahead(self.plan.batch, self.progress.step, self.plan.end, self.config.read_ahead, self.settings)
        with contextlib.closing(reading) as works:
            for update in range(course.done(self.progress.step), course.done(self.plan.end)):
                count, rate = course.update(update)
                self._update(self._next(works, count), rate)
                if update + 1 in self.snapshots:
                    self.weights.add(update + 1 == self.snapshots[0])
                done = self.progress.step
                is_log = done // self.config.log_every > logged or done == steps
                if is_log or self.encoder.device.type == "cpu":
                    self.check()
                if is_log:
                    logged = done // self.config.log_every
                    listeners.log(done, self._figures(rate))
                if done < steps:
                    listeners.update(done)
                self.meter.watch.mark("data")

    def resume(self, progress: Progress) -> None:
        """Go on from there; the weights and the optimiser are there already.

        On a CPU forward passes stay of one size, for the order in which gradients are added decides about last bits.
        """
        self.progress = progress
        if self.encoder.device.type == "cpu" and self.config.micro_batch_tokens is None and progress.micro_batch_tokens:
            self.settings = replace(self.settings, micro_batch_tokens=progress.micro_batch_tokens)

    def standing(self) -> Progress:
        """The progress as a checkpoint must hold it; waits for the device."""
        return replace(
            self.progress,
            update=next((float(state["step"]) for state in self.optimizer.state.values()), 0.0),
            curve=list(self.progress.curve),
            losses=self.guard.averages(),
            unlogged=self.meter.losses(),
            micro_batch_tokens=self.settings.micro_batch_tokens,
        )

    def left(self) -> dict[str, torch.Tensor]:
        """What is left of the member, or would be if it ended now: its average as far as there is one.

        See `boom_ray.training.weights.Weights.full`.
        """
        done = self.plan.course(self.config).done(self.progress.step)
        taken = sum(update <= done for update in self.snapshots)
        return self.weights.full(averaged=taken > 0 or not self.snapshots, count=max(1, taken))

    def check(self) -> None:
        """Look for bad steps since the last look; waits for the device.

        Raises:
            TrainingError: there is one, and the configuration says stop.
        """
        self.progress.skipped += len(self.guard.check())

    def _next(self, works: Iterator[Work], count: int) -> list[Work]:
        """The steps of one update; equally many pieces on all workers if need be."""
        many = list(itertools.islice(works, count))
        if isinstance(self.weights, Replicated):
            return many
        return [fill(work, *self.group.pieces(len(work.pieces), work.kept), self.settings) for work in many]

    def _update(self, many: list[Work], rate: float) -> None:
        """One update from the gradients of some steps."""
        watch = self.meter.watch
        self.weights.clear()
        losses = []
        for number, work in enumerate(many):
            hooks = self._hooks(work, self.progress.step + number, number == len(many) - 1)
            policy = policy_of_step(work.batch.parts, self.plan.policies)
            loss = backward(self.encoder, work, policy, self.settings, self.matryoshka, hooks, 1 / len(many))
            losses.append(loss)
            self.meter.step(work.batch, work, loss, self.flops.of(work.batch.texts))
        watch.mark("communication")
        norm = self.weights.reduce()
        watch.mark("update")
        self.progress.step += len(many)
        bad = self.guard.judge(self.progress.step - 1, [work.batch for work in many], losses, norm)
        set_rate(self.optimizer, rate)
        # AdamW divides gradients by the one and changes nothing where the other is 1, without the host knowing either.
        # Fused optimisers read both from attributes that torch's annotations do not know.
        clipped = (norm + 1e-6) / self.config.max_grad_norm
        self.optimizer.grad_scale = clipped.clamp(min=1.0).to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.weights.publish()
        if self.config.ema is not None:
            self.weights.average((1 - self.config.ema) * (1 - bad))  # a bad step changes nothing
        self.meter.update(norm)

    def _hooks(self, work: Work, step: int, is_last: bool) -> Hooks:
        def seed(piece: int) -> None:
            torch.manual_seed(stream_key("dropout", self.seed, step, self.group.rank, piece) >> 1)

        count = work.batch.size
        return Hooks(
            gather=lambda own: self.group.gather(own, count),
            own=self.group.own(count),
            seed=seed if self._is_random else None,
            last=self.weights.last if is_last else None,
            mark=self.meter.watch.mark,
        )

    def _figures(self, rate: float) -> dict[str, float]:
        figures = self.meter.figures(rate)
        self.progress.curve.append((self.progress.step, figures["loss"]))
        return figures | {"skipped_steps": float(self.progress.skipped)} if self.progress.skipped else figures


def check(encoder: Encoder, config: TrainingConfig) -> None:
    """Check that a configuration fits a model, before workers begin to wait for each other.

    Raises:
        ModelError: a pattern of ``no_decay`` matches nothing, or a width of ``matryoshka`` is too large.
    """
    parameter_groups(encoder, config)
    matryoshka = Matryoshka.of(config.matryoshka)
    if matryoshka is not None:
        matryoshka.sizes(encoder.dimension)


def fill(work: Work, count: int, kept: int, settings: StepSettings) -> Work:
    """Work as sharded weights need it: equally many pieces on all workers, and equally many of them computed twice.

    Pieces that are missing are texts of one token whose gradients are 0.
    """
    token = np.array([0 if settings.pad_id else 1], dtype=np.int32)  # any token but padding
    more = [settings.layout.batch([token], settings.pad_id)] * (count - len(work.pieces))
    return replace(work, pieces=(*work.pieces, *more), kept=kept)
