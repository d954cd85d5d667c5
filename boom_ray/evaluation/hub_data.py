"""Whether the data of mteb's own tasks can be had, before hours are spent: it is here, or the hub answers."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError

TIMEOUT_S = 10.0
log = logging.getLogger(__name__)


def check_data(tasks: Iterable[TaskConfig]) -> None:
    """Check mteb's own tasks; folders are checked elsewhere. With a network, whatever is missing will be fetched.

    Raises:
        EvaluationError: some data is not on this machine, and the hub does not answer, or keeps it private; says of
            every task which it is.
    """
    named = [task.name for task in tasks if task.path is None]
    missing = [name for name in named if not _is_here(name)]
    if not missing:
        return
    if _hub_answers():
        _check_readable(missing)
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


def _check_readable(names: Sequence[str]) -> None:
    """RTEB, for one, has tasks whose data is not shown to everybody; the hub is asked about those only."""
    closed = [name for name in names if not all(map(_is_readable, _parts(name)))]
    if closed:
        raise EvaluationError(
            f"The data of {len(closed)} of mteb's tasks is private: it is not on this machine, and the hub does not "
            f"let you read it. Leave them out, in an entry of evaluation.benchmarks with:\n"
            f"without: [{', '.join(closed)}]"
        )


def _parts(name: str) -> list[Any]:
    """Metadata of a task, or of those that an aggregate is made of, which has no data of its own."""
    import mteb

    metadata = mteb.get_task(name).metadata
    parts = getattr(metadata, "tasks", None)
    return [inner for part in parts for inner in _parts(part.metadata.name)] if parts else [metadata]


def _is_readable(metadata: Any) -> bool:
    """Whether a task's data is public, or the hub lets this user read it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    path = str(metadata.dataset["path"])
    if metadata.is_public or _is_cached(metadata):
        return True
    try:
        HfApi(endpoint=constants.ENDPOINT).auth_check(path, repo_type="dataset")
    except RepositoryNotFoundError:  # what it says of those that one may not see, too
        return False
    except Exception as error:  # a hub that is busy, or answers otherwise, has not refused
        log.info("Whether %s can be read is not known: %s", path, error)
    return True


def _is_here(name: str) -> bool:
    return all(map(_is_cached, _parts(name)))


def _is_cached(metadata: Any) -> bool:
    """Whether the hub's cache holds a task's data in the revision that mteb asks for."""
    from huggingface_hub import constants

    path, revision = str(metadata.dataset["path"]), str(metadata.dataset.get("revision") or "main")
    if Path(path).exists():
        return True
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}"
    branch = folder / "refs" / revision
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else revision
    return any((folder / "snapshots" / commit).glob("*"))


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
