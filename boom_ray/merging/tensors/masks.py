"""Random numbers that belong to elements of a tensor, not to a generator's state.

Every element of every member's tensor has one number, which follows from the seed, the tensor's name, the member's
label and the element's index, and from nothing else: neither from the order of tensors and members nor from how the
tensor was cut into strips.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from boom_ray.hashing import mix64, stream_key, unit_interval

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


def uniform(seed: int, name: str, label: str, start: int, count: int) -> F32:
    """Uniform numbers of the elements ``start`` to ``start + count`` of one tensor of one member.

    One 64-bit hash serves two neighbours; a number has 24 random bits, as many as a float32 between 0.5 and 1 holds.

    Args:
        seed: seed of the masks.
        name: the tensor's key.
        label: the member's label.
        start: first element.
        count: number of elements.

    Returns:
        (count,) float32 in [0, 1).
    """
    first, stop = start // 2, (start + count + 1) // 2
    hashes = mix64(np.arange(first, stop, dtype=np.uint64), stream_key(seed, "mask", name, label))
    halves = hashes.astype("<u8", copy=False).view("<u4")
    halves >>= np.uint32(8)
    numbers: F32 = np.multiply(halves, np.float32(2.0**-24), dtype=np.float32)
    return numbers[start - 2 * first :][:count]


def numbers_of(name: str, label: str, positions: I64) -> npt.NDArray[np.float64]:
    """Uniform numbers that choose among equals: (n,) float64 in [0, 1), for scattered elements, few of many.

    Args:
        name: the tensor's key.
        label: the member's label.
        positions: (n,) indices of the elements in the tensor.
    """
    return unit_interval(mix64(positions.astype(np.uint64), stream_key("tie", name, label)))
