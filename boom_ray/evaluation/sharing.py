"""Big tasks shared: an actor that embeds many texts puts blocks of them on a board, and idle actors help.

Blocks are the same whoever computes them, so the embeddings are the same to the last bit however many help. A helper
that dies costs time only: who posted a block computes it in the end.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boom_ray.artifacts.tokens import F32
from boom_ray.evaluation.scores import Manner, ModelRef

POLL_S = 0.1
PATIENCE = 3.0
"""A block that others have had for so many times as long as one takes here is computed here, too."""
Compute = Callable[[Sequence[str], Manner], F32]
log = logging.getLogger(__name__)


@dataclass
class Block:
    """Texts to embed.

    Attributes:
        model: by which model.
        manner: how.
        texts: the texts.
        vectors: (n, d) when they are there.
        is_taken: somebody works on it.
        is_refused: helpers could not compute it.
    """

    model: ModelRef
    manner: Manner
    texts: Sequence[str]
    vectors: F32 | None = None
    is_taken: bool = False
    is_refused: bool = False


@dataclass
class Board:
    """Blocks that wait, are computed, or are done; runs as one Ray actor per evaluation."""

    blocks: dict[int, Block] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def post(self, model: ModelRef, manner: Manner, blocks: Sequence[Sequence[str]]) -> list[int]:
        """Put blocks on the board; returns their numbers."""
        made = {next(self.numbers): Block(model, manner, texts) for texts in blocks}
        self.blocks |= made
        return list(made)

    def take(self, wanted: Sequence[int] | None = None, model: str | None = None) -> tuple[int, Block] | None:
        """A block that nobody has; of these numbers, and of this model first; None if there is none."""
        own = None if wanted is None else frozenset(wanted)  # looked into for every block of the board
        free = [
            (number, block)
            for number, block in self.blocks.items()
            if not block.is_taken and (number in own if own is not None else not block.is_refused)
        ]
        found = next((one for one in free if one[1].model.path == model), free[0] if free else None)
        if found is not None:
            found[1].is_taken = True
        return found

    def give(self, number: int, vectors: F32) -> None:
        """The embeddings of a block; those of a block that is gone are let go."""
        if number in self.blocks:
            self.blocks[number].vectors = vectors

    def refuse(self, number: int) -> None:
        """A helper could not compute a block; who posted it must."""
        if number in self.blocks:
            self.blocks[number].is_taken = False
            self.blocks[number].is_refused = True

    def drop(self, numbers: Sequence[int]) -> None:
        """Nobody waits for these any more."""
        for number in numbers:
            self.blocks.pop(number, None)

    def collect(self, numbers: Sequence[int]) -> dict[int, F32]:
        """Blocks that are done, which leave the board."""
        done = {number: self.blocks[number].vectors for number in numbers if number in self.blocks}
        found = {number: vectors for number, vectors in done.items() if vectors is not None}
        for number in found:
            del self.blocks[number]
        return found


class Sharer:
    """One actor's access to the board.

    Args:
        call: calls a method of the board and waits for what it returns.
        model: the model whose texts are posted.
    """

    def __init__(self, call: Callable[..., Any], model: ModelRef) -> None:
        """Nothing is posted."""
        self.call, self.model = call, model
        self.is_gone = False

    def run(self, blocks: Sequence[Sequence[str]], manner: Manner, compute: Compute) -> list[F32]:
        """The embeddings of blocks, in their order, computed here and by whoever helps.

        A board that is gone, with its machine for one, costs its help only.
        """
        numbers = self._ask([], "post", self.model, manner, blocks) or list(range(len(blocks)))
        found: dict[int, F32] = {}
        try:
            self._share(dict(zip(numbers, blocks, strict=True)), manner, compute, found)
        finally:
            self._ask(None, "drop", numbers)
        return [found[number] for number in numbers]

    def _ask(self, otherwise: Any, method: str, *arguments: Any) -> Any:
        """What the board says; ``otherwise`` once it is gone."""
        if self.is_gone:
            return otherwise
        try:
            return self.call(method, *arguments)
        except Exception as error:  # whatever Ray raises for an actor that died
            self.is_gone = True
            log.warning("Big tasks are not shared any more: %s", error)
            return otherwise

    def _share(
        self, texts: Mapping[int, Sequence[str]], manner: Manner, compute: Compute, found: dict[int, F32]
    ) -> None:
        """Fill ``found``."""
        numbers = list(texts)
        longest = 0.0
        while (taken := self._ask(None, "take", numbers)) is not None:
            started = time.monotonic()
            found[taken[0]] = compute(taken[1].texts, manner)
            longest = max(longest, time.monotonic() - started)
            self._ask(None, "give", taken[0], found[taken[0]])
        deadline = time.monotonic() + PATIENCE * max(longest, POLL_S)
        while missing := [number for number in numbers if number not in found]:
            found |= self._ask({}, "collect", missing)
            rest = [number for number in missing if number not in found]
            if rest and (self.is_gone or time.monotonic() > deadline):
                found[rest[-1]] = compute(texts[rest[-1]], manner)
            elif rest:
                time.sleep(POLL_S)


def help_others(
    call: Callable[..., Any], embed: Callable[[ModelRef, Sequence[str], Manner], F32], is_over: Callable[[], bool]
) -> None:
    """Compute blocks of others.

    Args:
        call: see `Sharer`.
        embed: (model, texts, manner) to embeddings.
        is_over: asked when there is nothing to do; True ends it.
    """
    loaded = None
    while True:
        taken = call("take", None, loaded)
        if taken is None:
            if is_over():
                return
            time.sleep(POLL_S)
            continue
        number, block = taken
        try:
            vectors = embed(block.model, block.texts, block.manner)
        except Exception as error:  # whoever posted it will meet the same error, or compute it
            log.info("A block of %s could not be computed here: %s", block.model.name, error)
            call("refuse", number)
            continue
        loaded = block.model.path
        call("give", number, vectors)
