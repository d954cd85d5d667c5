"""When a member's checkpoints are taken, and how they reach the store beside training."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import ray.train

from boom_ray.config import TrainingConfig
from boom_ray.training.loop import Loop
from boom_ray.training.state import restore, snapshot, write


class Checkpoints:
    """Takes checkpoints of a loop by steps and by minutes.

    A checkpoint is a copy in memory, written and uploaded while training goes on; the copy before it must have arrived
    first, so there are never more than two. Ray makes it count only when all workers' files are there.

    Args:
        loop: what is trained.
        config: how often.
    """

    def __init__(self, loop: Loop, config: TrainingConfig) -> None:
        """Start the clock."""
        self.loop, self.config = loop, config
        self.last_step, self.last_time = loop.progress.step, time.monotonic()
        self._arrived = threading.Event()
        self._arrived.set()

    def restore(self) -> int:
        """Continue from the run's last checkpoint; returns the finished steps."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.loop.progress = restore(Path(folder), self.loop.weights, self.loop.optimizer)
        self.last_step = self.loop.progress.step
        return self.last_step

    def offer(self, step: int) -> None:
        """Take a checkpoint if it is time; called after every update, by all workers at the same step."""
        if self._is_due(step):
            self.last_step, self.last_time = step, time.monotonic()
            self._take(step)

    def _is_due(self, step: int) -> bool:
        every, minutes = self.config.checkpoint_every, self.config.checkpoint_minutes
        by_steps = every is not None and step // every > self.last_step // every
        if minutes is None or step % self.config.log_every >= self.config.accumulation:
            return by_steps
        late = time.monotonic() - self.last_time >= 60 * minutes  # clocks differ: one decides for all
        return by_steps or self.loop.group.from_first(late)

    def _take(self, step: int) -> None:
        loop = self.loop
        loop.check()  # nothing bad is kept, and the host must wait for the device here anyway
        state = next(iter(loop.optimizer.state.values()))
        progress = replace(
            loop.progress, update=float(state["step"]), losses=loop.guard.averages(), curve=list(loop.progress.curve)
        )
        has_part = loop.group.rank == 0 or loop.config.parallelism == "fsdp"
        if not has_part:
            ray.train.report({"step": step}, checkpoint_dir_name=f"step{step:09d}")
            return
        self._arrived.wait()
        self._arrived.clear()
        tensors = snapshot(loop.weights, loop.optimizer)
        storage = ray.train.get_context().get_storage()

        def upload(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            try:
                write(Path(checkpoint.path), tensors, loop.weights, progress, loop.group.rank)
                return storage.persist_current_checkpoint(checkpoint, name)
            finally:
                tensors.clear()
                self._arrived.set()

        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(tempfile.mkdtemp(prefix="boom-checkpoint-")),
            checkpoint_dir_name=f"step{step:09d}",
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=upload,
        )
