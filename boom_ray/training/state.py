"""Checkpoints of a running member: weights, optimiser moments, averages and the step, as safetensors.

Random numbers need no state: dropout is seeded by (seed, step, micro-batch, rank), data order comes from the plan.
Every worker that holds weights writes a file; sharded ones are put together again by rows, so that a member continues
with another number of workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from boom_ray.errors import TrainingError
from boom_ray.training.weights import Held, Weights

MOMENTS = ("exp_avg", "exp_avg_sq")
PROGRESS = "progress.json"
Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """How far a member is.

    Attributes:
        step: finished steps of the plan.
        update: updates of the weights that AdamW has counted.
        curve: (step, loss) of every log line.
        skipped: bad steps that made no update.
        losses: dataset to the moving average of its loss, for leaps.
        unlogged: (dataset, loss) of the steps since the last log line.
        micro_batch_tokens: tokens of a forward pass; on CPUs a member goes on with as many, whatever is free now.
        seconds: that training took, in checkpoints of a member; a trunk's state is the same however long it took.
    """

    step: int = 0
    update: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    skipped: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    unlogged: list[tuple[str, float]] = field(default_factory=list)
    micro_batch_tokens: int = 0
    seconds: float = 0.0


def snapshot(weights: Weights, optimizer: torch.optim.AdamW) -> Tensors:
    """Copies on the CPU of what this worker's file must hold; training may go on at once."""
    found: Tensors = {}
    for held in weights.held():
        for kind, tensor in _tensors(held, optimizer):
            found[f"{kind}/{held.name}"] = tensor.detach().to("cpu", copy=True)
    return found


def _tensors(held: Held, optimizer: torch.optim.AdamW) -> Iterator[tuple[str, torch.Tensor]]:
    """Kind and this worker's part of every tensor that belongs to one of weights."""
    yield "weight", held.weight
    if held.average is not None:
        yield "average", held.average
    state = optimizer.state.get(held.weight, {})
    for moment in MOMENTS:
        if moment in state:
            yield moment, state[moment]


def write(folder: Path, tensors: Tensors, weights: Weights, progress: Progress, rank: int) -> None:
    """Write one worker's file, and on rank 0 the progress."""
    starts = {held.name: str(held.start) for held in weights.held()}
    save_file(tensors, str(file_of(folder, rank)), metadata={"starts": json.dumps(starts)})
    if rank == 0:
        facts = {"layout": weights.layout(), "files": weights.holders, **vars(progress)}
        (folder / PROGRESS).write_text(json.dumps(facts), encoding="utf-8")


def file_of(folder: Path, rank: int) -> Path:
    """The file of one worker."""
    return folder / f"state-{rank:05d}.safetensors"


@torch.no_grad()
def restore(folder: Path, weights: Weights, optimizer: torch.optim.AdamW) -> Progress:
    """Put a checkpoint back into weights, averages and optimiser; returns how far it is.

    Raises:
        TrainingError: it is damaged or of other weights; weights and optimiser are then partly changed.
    """
    try:
        facts = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        layout, count = facts.pop("layout"), int(facts.pop("files"))
        progress = Progress(**facts)
        progress.curve = [(int(step), float(loss)) for step, loss in progress.curve]
        progress.unlogged = [(str(name), float(loss)) for name, loss in progress.unlogged]
        if layout != weights.layout():
            raise TrainingError(f"The checkpoint {folder} is of other weights.")
        with _Files(folder, count) as files:
            _put_back(files, weights, optimizer, progress.update)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainingError(f"The checkpoint {folder} cannot be read: {type(error).__name__}: {error}.") from error
    weights.publish()
    return progress


def _put_back(files: _Files, weights: Weights, optimizer: torch.optim.AdamW, update: float) -> None:
    for held in weights.held():
        held.weight.copy_(files.read("weight", held))
        # A sum of snapshots begins with the first of them; a trunk that was left before has none
        if held.average is not None and (held.average.dtype != torch.float64 or files.has("average", held)):
            held.average.copy_(files.read("average", held))
        if files.has(MOMENTS[0], held):
            optimizer.state[held.weight] = _moments(files, held, update)
        else:
            optimizer.state.pop(held.weight, None)


def _moments(files: _Files, held: Held, update: float) -> Mapping[str, torch.Tensor]:
    device = held.weight.device
    state = {"step": torch.tensor(update, dtype=torch.float32, device=device)}
    for moment in MOMENTS:
        state[moment] = files.read(moment, held).to(device)
    return state


class _Files:
    """The files of a checkpoint, opened lazily; tensors are read by rows, from whichever files have them.

    An attempt with more workers that was cut off at the same step may have left files beside them: only the first
    ``count`` belong to it.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._open: list[tuple[Any, dict[str, int], frozenset[str]]] = []
        self._stack = ExitStack()

    def __enter__(self) -> _Files:
        for rank in range(self.count):
            file = self._stack.enter_context(safe_open(str(file_of(self.folder, rank)), "pt"))
            starts = json.loads((file.metadata() or {})["starts"])
            self._open.append((file, {name: int(start) for name, start in starts.items()}, frozenset(file.keys())))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def has(self, kind: str, held: Held) -> bool:
        """Whether any file has such a tensor."""
        return any(f"{kind}/{held.name}" in keys for _, _, keys in self._open)

    def read(self, kind: str, held: Held) -> torch.Tensor:
        """The rows that this worker holds."""
        key = f"{kind}/{held.name}"
        if held.rows is None:
            return self._open[0][0].get_tensor(key)
        count = len(held.weight)
        pieces = []
        for file, starts, keys in self._open:
            if key not in keys:
                continue
            part = file.get_slice(key)
            first = starts[held.name]
            low, high = max(held.start, first), min(held.start + count, first + part.get_shape()[0])
            if low < high:
                pieces.append(part[low - first : high - first])
        found = torch.cat(pieces) if pieces else torch.empty_like(held.weight, device="cpu")
        if len(found) != count:
            raise TrainingError(f"The checkpoint {self.folder} lacks rows of {held.name}.")
        return found
