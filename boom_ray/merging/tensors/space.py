"""The vectors of one tensor as far as inner products tell: lengths, angles and combinations, without the tensor.

The vectors are kept as combinations of a basis whose Gram matrix is known: a reference (the base model, or the first
member) and every member's difference from it. Fine-tunes of one base differ by a hundredth of their length, so lengths
and angles between them, computed from products of whole weights, would lose most of their digits; computed from the
differences they lose none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """M vectors in a basis of K.

    Attributes:
        basis: (K, K) Gram matrix of the basis.
        transform: (M, K), each vector as a combination of the basis.
    """

    basis: F64
    transform: F64

    @staticmethod
    def of_gram(gram: F64) -> Space:
        """The space of vectors whose own (M, M) Gram matrix is all that is known."""
        return Space(gram, np.eye(len(gram)))

    @staticmethod
    def of_differences(basis: F64, whole: bool) -> Space:
        """M vectors t_i from the (M + 1, M + 1) Gram matrix of (base, t_1 - base, …, t_M - base).

        Args:
            basis: the Gram matrix.
            whole: whether the vectors are the t_i themselves, or their differences from the base.
        """
        count = len(basis) - 1
        return Space(basis, np.hstack([np.full((count, 1), float(whole)), np.eye(count)]))

    @staticmethod
    def of_first(basis: F64) -> Space:
        """M vectors t_i from the (M, M) Gram matrix of (t_1, t_2 - t_1, …, t_M - t_1)."""
        transform = np.eye(len(basis))
        transform[:, 0] = 1.0
        return Space(basis, transform)

    @property
    def members(self) -> int:
        """Number of vectors, M."""
        return len(self.transform)

    @cached_property
    def gram(self) -> F64:
        """(M, M) inner products of the vectors."""
        product: F64 = self.transform @ self.basis @ self.transform.T
        return product

    @cached_property
    def norms(self) -> F64:
        """(M,) lengths of the vectors."""
        return np.array([self.norm(one) for one in np.eye(self.members)])

    def inner(self, left: F64, right: F64) -> float:
        """Inner product of Σ left_i v_i and Σ right_i v_i; both (M,)."""
        return float((left @ self.transform) @ self.basis @ (right @ self.transform))

    def norm(self, combination: F64) -> float:
        """Length of Σ combination_i v_i; (M,)."""
        return math.sqrt(max(self.inner(combination, combination), 0.0))

    def angle(self, left: F64, right: F64) -> float:
        """Angle between Σ left_i v_i and Σ right_i v_i in radians, exact for small ones too; 0 if either is zero."""
        first, second = self.norm(left), self.norm(right)
        if first == 0 or second == 0:
            return 0.0
        one, two = left / first, right / second
        return 2 * math.atan2(self.norm(one - two), self.norm(one + two))  # W. Kahan, "How futile…", 2006, section 12
