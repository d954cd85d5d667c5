"""How much memory a merge takes, told beforehand: it depends on chunk, strips and threads, not on the model's size."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.merging.methods.method import Method, Parameters
from boom_ray.merging.reading.checkpoint import TensorInfo
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.stream import Opened
from boom_ray.merging.tensors.magnitudes import BUCKETS, FINE
from boom_ray.merging.tensors.vectors import STRIP

WIDE = 8
"""Bytes of a float64."""
SCRATCH = 4
"""Strips of all members that methods on single elements make on their way, at most."""
KEPT_COUNTS = 1 << 14
"""Bytes of one histogram in the form in which it is kept until the merge ends."""
SLACK = 64 << 20
"""Bytes that libraries and the allocator take beside what is counted here."""


def memory_bound(opened: Opened, recipe: Recipe, chunk_bytes: int, threads: int) -> int:
    """Most bytes that a merge holds beside the process itself.

    1. A chunk of every model, where the method looks at a tensor more than once (less when no tensor is that large).
    2. Per thread one strip of every model as read, in the type of the arithmetic, and in float64 for inner products,
       and what the method makes of it; strips of methods on rows hold whole rows.
    3. Counts of magnitudes, RegMean's products of one layer's inputs, low-rank factors of adapters.
    4. A constant for libraries and allocator.

    Args:
        opened: the models.
        recipe: method and numbers.
        chunk_bytes: most bytes of one tensor held per model.
        threads: threads that work on strips.
    """
    entry, members = recipe.entry, len(opened.members)
    models = len(opened.models) + len(opened.fisher)
    infos = opened.floating()
    width = max((int(one.read_type(info).itemsize) for one in opened.models for info in infos), default=1)
    looks = bool(recipe.needs & {"gram", "magnitudes"})
    chunk = looks * models * min(chunk_bytes, max((info.numel for info in infos), default=0) * width)
    made = SCRATCH * members if entry.rule is None else 1
    strip = _longest_strip(entry, recipe.parameters, infos) * (models * (2 * width + 2 * WIDE) + made * WIDE)
    return chunk + threads * (strip + _counts(recipe, members)) + _kept(opened, recipe) + SLACK


def _longest_strip(entry: Method, parameters: Parameters, infos: Sequence[TensorInfo]) -> int:
    """Elements of the longest strip that the method asks for."""
    longest = max((min(info.numel, STRIP) for info in infos), default=0)
    if not entry.rows_for(parameters):
        return longest
    for info in infos:
        columns = info.shape[-1] if len(info.shape) > 1 else info.numel
        longest = max(longest, min(info.numel, max(entry.least_rows, STRIP // max(1, columns)) * columns))
    return longest


def _counts(recipe: Recipe, members: int) -> int:
    """Arrays in which one thread counts magnitudes: a histogram, and the fine counts of up to two cuts per member."""
    counts = recipe.entry.rule is None
    return counts * members * (BUCKETS + 2 * FINE) * WIDE


def _kept(opened: Opened, recipe: Recipe) -> int:
    """What stays for the whole merge or for a whole tensor."""
    members, tensors = len(opened.members), len(opened.floating())
    magnitudes = bool(recipe.needs & {"magnitudes", "model_magnitudes"})
    histograms = magnitudes * members * (tensors * KEPT_COUNTS + BUCKETS * WIDE)
    columns = max((info.shape[-1] for one in opened.activations for info in one.tensors.values()), default=0)
    products = (members + 3) * columns * columns * WIDE
    return histograms + products + sum(one.resident_bytes for one in opened.members)
