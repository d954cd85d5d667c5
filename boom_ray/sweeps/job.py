"""What one trial computes: a merge of members and its scores on the selection tasks; and what tells two trials apart.

Quick, and without mteb, so that a driver can look trials up that were computed before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boom_ray.config import EvaluationConfig, MergeConfig, ModelConfig, TaskConfig
from boom_ray.evaluation.benchmarks import task_spec, with_prompts
from boom_ray.evaluation.scores import ModelRef
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import Recipe, resolve
from boom_ray.model.folder import prompts_digest
from boom_ray.store import Store, artifact_key

KIND = "trial"
VERSION = 1
"""Format of a trial's figures; raise it when the same job gives others."""
MERGED = "the merged model"
"""How errors call it: they are kept, and the same merge may be asked for under other names."""


@dataclass(frozen=True)
class TrialJob:
    """Everything that determines a trial's scores.

    Attributes:
        name: for messages; not part of any key.
        inputs: members as complete folders, with fingerprints; base, Fisher information, activations.
        config: the recipe, with weights that are ``equal``, ``size`` or numbers.
        tasks: selection tasks at the size of the rung, with every name made a path; their order does not matter.
    """

    name: str
    inputs: MergeInputs
    config: MergeConfig
    tasks: tuple[TaskConfig, ...]


@dataclass(frozen=True)
class Identity:
    """What determines the figures of a job, found out without computing them.

    Attributes:
        recipe: the resolved merge.
        reader: how texts are read: the first member's tokenizer, pooling and prompts; the weights are not its own.
        spec: recipe and tasks.
        inputs: fingerprints of what is merged.
    """

    recipe: Recipe
    reader: ModelRef
    spec: dict[str, Any]
    inputs: dict[str, Any]

    @property
    def key(self) -> str:
        """Key of the artifact."""
        return artifact_key(KIND, self.spec, self.inputs, VERSION)

    @property
    def models(self) -> frozenset[str]:
        """Fingerprints of the models whose tensors must be in memory."""
        base = self.inputs["base"]
        return frozenset([*self.inputs["members"], *([base] if base else [])])


class TaskSpecs:
    """What determines the scores of tasks; the files of each are hashed once, for they stay as they are in a search.

    Args:
        evaluation: seed and precision.
    """

    def __init__(self, evaluation: EvaluationConfig) -> None:
        """Nothing is hashed."""
        self._evaluation = evaluation
        self._known: dict[TaskConfig, dict[str, Any]] = {}

    def of(self, task: TaskConfig, reader: ModelRef) -> dict[str, Any]:
        """See `boom_ray.evaluation.benchmarks.score_spec`."""
        if task not in self._known:
            self._known[task] = task_spec(task, self._evaluation)
        return with_prompts(self._known[task], reader, task)


def identify(store: Store, job: TrialJob, specs: TaskSpecs, model: ModelConfig) -> Identity:
    """Resolve the recipe, and hash what the first member has beside its weights.

    Args:
        store: where members may be.
        job: the trial.
        specs: of the tasks.
        model: templates.

    Raises:
        MergeError: the recipe does not fit the members.
        EvaluationError: a task's folder or one of its files does not exist.
        ModelError: the first member's folder is incomplete.
        StoreError: it is an artifact that does not exist.
    """
    inputs = job.inputs
    recipe = resolve(job.config, inputs.members)
    first = inputs.members[0]
    digest = prompts_digest(store.resolve(first.path))
    reader = ModelRef(MERGED, first.path, "", digest, model.query_template, model.passage_template)
    tasks = {task.name: specs.of(task, reader) for task in job.tasks}
    spec = recipe.spec()
    del spec["shard_bytes"]  # nothing is saved
    made_from = {
        "members": [ref.fingerprint for ref in inputs.members],
        "base": inputs.base.fingerprint if inputs.base and recipe.uses_base else None,
        "fisher": [ref.fingerprint for ref in inputs.fisher],
        "activations": [ref.fingerprint for ref in inputs.activations],
        "prompts": digest,
    }
    return Identity(recipe, reader, {"recipe": spec, "tasks": tasks}, made_from)
