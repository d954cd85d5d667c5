"""When a member's checkpoints are taken, and how they reach the store beside training."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import ray.train

from boom_ray.config import TrainingConfig
from boom_ray.disk import new_draft
from boom_ray.errors import TrainingError
from boom_ray.training.loop import Loop
from boom_ray.training.state import restore, snapshot, write

COMMITTED = ray.train.CheckpointConsistencyMode.COMMITTED
log = logging.getLogger(__name__)


class Checkpoints:
    """Takes checkpoints of a loop by steps and by minutes.

    A checkpoint is a copy in memory, written and uploaded while training goes on; the copy before it must have arrived
    first, so there are never more than two. Ray makes it count only when all workers' files are there.

    Args:
        loop: what is trained.
        config: how often.
        started: when this attempt began, by ``time.monotonic``; now by default.
    """

    def __init__(self, loop: Loop, config: TrainingConfig, started: float | None = None) -> None:
        """Start the clock."""
        self.loop, self.config = loop, config
        self._earlier, self._started = 0.0, time.monotonic() if started is None else started
        self.last_step, self.last_time = loop.progress.step, time.monotonic()
        # Ray keeps count of folders by name, and after an older checkpoint was taken, steps come a second time
        self.attempt = loop.group.from_first(uuid.uuid4().hex[:8])
        self._arrived = threading.Event()
        self._arrived.set()

    def seconds(self) -> float:
        """What training took until now: this attempt, and earlier ones until the checkpoint that it began with."""
        return self._earlier + time.monotonic() - self._started

    def restore(self) -> int:
        """Continue from the run's last checkpoint that can be read; returns the finished steps.

        Raises:
            TrainingError: there are some, and none can be read; on all workers.
        """
        last = ray.train.get_checkpoint()
        fault = None if last is None else self._try(last)
        if last is not None and fault is not None:
            self._restore_older(last, fault)
        self.last_step = self.loop.progress.step
        return self.last_step

    def _restore_older(self, last: ray.train.Checkpoint, fault: str) -> None:
        for report in reversed(ray.train.get_all_reported_checkpoints(COMMITTED)):
            if report.checkpoint.path == last.path:
                continue
            log.warning("%s The one before it is taken.", fault)
            older = self._try(report.checkpoint)
            if older is None:
                return
            fault = older
        raise TrainingError(
            f"{fault} There is no older one. Remove the folder {Path(last.path).parent} and run again: the member "
            f"begins anew."
        )

    def _try(self, checkpoint: ray.train.Checkpoint) -> str | None:
        """Go on from a checkpoint on all workers; what is wrong with it on any of them."""
        fault = None
        try:
            with checkpoint.as_directory() as folder:
                progress = restore(Path(folder), self.loop.weights, self.loop.optimizer)
        except (TrainingError, OSError) as error:
            fault = str(error)
        fault = self.loop.group.first_fault(fault)
        if fault is None:
            self._earlier = progress.seconds
            self.loop.resume(replace(progress, seconds=0.0))
        return fault

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
        progress, name = replace(loop.standing(), seconds=self.seconds()), f"step{step:09d}-{self.attempt}"
        if loop.group.rank >= loop.weights.holders:
            ray.train.report({"step": step}, checkpoint_dir_name=name)
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
            checkpoint=ray.train.Checkpoint.from_directory(new_draft(Path(tempfile.gettempdir()), "boom-checkpoint-")),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=upload,
        )
