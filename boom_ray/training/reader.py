"""Steps read and cut into micro-batches in a thread of their own, some steps before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

from boom_ray.artifacts.batches import Batch
from boom_ray.model.steps import StepSettings, Work, prepare


def read_ahead(
    batch: Callable[[int], Batch], start: int, stop: int, ahead: int, settings: StepSettings
) -> Generator[Work, None, None]:
    """Steps ``start`` to ``stop`` in order.

    A context that ends early must close the generator, which ends the thread.

    Args:
        batch: step to this worker's batch; called from another thread.
        start: first step.
        stop: one past the last.
        ahead: steps that are ready or being made while one is computed.
        settings: how they are cut.

    Raises:
        BoomError: whatever reading a step raises, when its turn comes.
    """

    def work(step: int) -> Work:
        return prepare(batch(step), settings)

    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        waiting: deque[Future[Work]] = deque()
        try:
            for step in range(start, stop):
                while len(waiting) <= ahead and step + len(waiting) < stop:
                    waiting.append(pool.submit(work, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
