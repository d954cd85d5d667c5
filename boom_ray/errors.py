"""The errors a user can act on. Everything else that is raised is a bug of ours.

Each takes one finished sentence or more: what is wrong, where (file, line, key, tensor), and what to do. They hold a
single string so that they survive pickling on their way back from a Ray worker.
"""

from __future__ import annotations


class BoomError(Exception):
    """Base of all errors whose text alone is shown to the user; jobs exit with ``exit_code``."""

    exit_code = 1


class ConfigError(BoomError):
    """A key or value of the configuration is wrong."""

    exit_code = 2


class DataError(BoomError):
    """A row, file or dataset cannot be used; the text names file and line."""


class StoreError(BoomError):
    """The store cannot be read or written."""


class ModelError(BoomError):
    """A model folder is incomplete, unsafe or of an unsupported kind."""


class TrainingError(BoomError):
    """One or more members could not be trained; the others are finished."""


class MergeError(BoomError):
    """Members cannot be merged, or the recipe does not fit them."""


class EvaluationError(BoomError):
    """A task cannot be evaluated."""


class TrackingError(BoomError):
    """The MLflow server or database cannot be reached."""
