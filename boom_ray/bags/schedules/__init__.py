"""Schedules: how the examples of a bag become the steps of a plan.

- batch-level-shuffling: a step is one dataset; the steps of all datasets are shuffled (`batch_level_shuffling`).
- dataset-sequential: one dataset after another, all epochs of each before the next (`dataset_sequential`).
- task-sequential: one task type after another, all epochs of each, shuffled inside (`task_sequential`).
- two-stage: stage after stage, each with datasets, epochs and learning rate of its own, shuffled inside (`two_stage`).
- round-robin: datasets take turns in every epoch until each is used up (`round_robin`).
- temperature-proportional: datasets by n^(1/T), small ones again and again, shuffled (`temperature_proportional`).
- example-mixing: a step has examples of all datasets (`example_mixing`).

The first five use the same batches: an epoch has every example of a dataset's full batches once, the incomplete batch
is left out. What all have in common: order comes from keyed hashes of (seed, pass, dataset, example id), never from the
state of a random generator; the number of workers is not known here; a step has B examples, B being
``training.batch_size``; one learning-rate curve spans the plan, save for stages.
"""

from boom_ray.bags.schedules.schedule import Schedule, schedule_of
from boom_ray.bags.schedules.sequential import StageRule
from boom_ray.bags.schedules.shuffled import batch_level_shuffling

__all__ = ["Schedule", "StageRule", "batch_level_shuffling", "schedule_of"]
