"""MLflow: one experiment, a parent run per job, child runs per stage and member, written by the driver alone.

`Tracker.open` is the only call that can fail because of the server. After it everything goes through a buffer and a
background thread (`boom_ray.tracking.delivery`), so a slow or vanished server neither stops nor slows a job.
"""

from boom_ray.tracking.runs import Run, Tracker

__all__ = ["Run", "Tracker"]
