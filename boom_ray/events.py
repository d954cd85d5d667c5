"""What long work says while it runs: plain events that a progress table, MLflow or a test can take.

Stages call a ``Report``; they do not know who listens. Workers on other machines put events on a queue of the runtime
(`boom_ray.runtime.event_queue`) that the driver drains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SCORES_OF_MEMBERS = "scores of members"
"""The stage of scores that come while members train."""


@dataclass(frozen=True)
class Event:
    """Progress of one unit of work.

    Attributes:
        stage: ``corpus``, ``contamination``, ``bags``, ``members``, ``merge``, ``scores``, ``synergy``, and of sweeps
            ``trials`` (being computed) and ``search`` (ended).
        unit: what inside the stage: a dataset, member, or model/task.
        done: how much is done, in ``total``'s unit; ``done == total`` ends the unit.
        total: how much there is (steps, rows, bytes, tasks); 0 when unknown.
        figures: measured now, by name: ``loss``, ``pairs_per_s``…
        note: one short line for people (``cached``, ``restarted from step 200``…).
        measure: what ``done`` and ``total`` count, for people: ``bytes``, ``characters``; empty for things that are
            counted.
    """

    stage: str
    unit: str
    done: float
    total: float
    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""
    measure: str = ""


Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener that ignores everything."""
