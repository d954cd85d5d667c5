"""Whether the data of mteb's own tasks can be had, before hours are spent: it is here, or the hub answers."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError

TIMEOUT_S = 10.0
log = logging.getLogger(__name__)


def check_data(tasks: Iterable[TaskConfig]) -> None:
    """Check mteb's own tasks; folders are checked elsewhere. With a network, whatever is missing will be fetched.

    Raises:
        EvaluationError: some data is not on this machine and the hub does not answer; says of every task which it is.
    """
    named = [task.name for task in tasks if task.path is None]
    missing = [name for name in named if not _is_here(name)]
    if not missing or _hub_answers():
        return
    here = [name for name in named if name not in missing]
    raise EvaluationError(
        f"The Hugging Face hub cannot be reached, and the data of {len(missing)} of mteb's tasks is not on this "
        f"machine: {', '.join(missing)}. On this machine: {', '.join(here) or 'none'}. Evaluate them once where there "
        f"is a network (its cache, HF_HOME, can be copied), or leave them out."
    )


def warn_of_data(tasks: Iterable[TaskConfig]) -> None:
    """The same as a warning, for jobs whose scores may be in the store already, or that have more to do than scores."""
    try:
        check_data(tasks)
    except EvaluationError as error:
        log.warning("%s", error)


def _is_here(name: str) -> bool:
    """Whether the hub's cache holds a snapshot of a task's data."""
    import mteb
    from huggingface_hub import constants

    metadata = mteb.get_task(name).metadata
    parts = getattr(metadata, "tasks", None)  # an aggregate has no data of its own
    if parts:
        return all(_is_here(part.metadata.name) for part in parts)
    path = str(metadata.dataset["path"])
    if Path(path).exists():
        return True
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}" / "snapshots"
    return any(folder.glob("*/*"))


def _hub_answers() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=TIMEOUT_S):  # noqa: S310  (the user's own endpoint)
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError):
        return False
