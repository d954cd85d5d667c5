"""Methods that weigh members by what data says about them: Fisher information and the inputs of linear layers.

Both are weighted averages with weights finer than one per member: one per element (Fisher), or one matrix per linear
layer (RegMean). What they look at is gathered once per member, see `boom_ray.merging.probe`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Combine, Method, Parameters
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import Strip, Vectors

SINGLE_EPS = float(np.finfo(np.float32).eps)
ROWS = 256
"""Rows that RegMean multiplies at a time; with fewer, reading its matrices takes longer than multiplying by them."""


def prepare_fisher(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
    """Average every element with weights w_i F_i: members count where their loss is sensitive to the element.

    merged = Σ w_i F_i t_i / Σ w_i F_i, element by element. Only the ratios of the members' F matter: they are divided
    by the largest of them first, so that values near the smallest float32 lose nothing, and no constant is added to
    them. Where no member with a positive weight has F > 0 (a token that the sample never uses), and in tensors without
    Fisher information, the element is the plain weighted average. Equal members return themselves exactly.

    Args:
        vectors: strips hold ``importance`` (M, n), not negative, or None.
        weights: (M,), sum 1.
        parameters: none.

    Source: Matena & Raffel 2021, arXiv 2111.09832, equation 3 (the diagonal approximation).
    Limits: F is comparable between members only when it was gathered on one sample with one loss.
    """

    def combine(strip: Strip) -> torch.Tensor:
        if strip.importance is None:
            return average(strip.rows, weights)
        shares = strip.importance / strip.importance.amax(dim=0).clamp_min_(torch.finfo(strip.rows.dtype).tiny)
        shares *= torch.as_tensor(weights, dtype=shares.dtype, device=shares.device)[:, None]
        total = shares.sum(dim=0)
        plain = torch.as_tensor(weights, dtype=shares.dtype, device=shares.device)[:, None]
        shares = torch.where(total > 0, shares / total, plain)
        return _around_first(strip.rows, shares)

    return combine


def prepare_regmean(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
    """Choose the linear layer whose outputs are closest to the members' own outputs on their own inputs.

    For a layer y = W x with inputs X_i (tokens × columns) in member i, merged W minimises Σ w_i |X_i Wᵀ - X_i W_iᵀ|²:
    W = (Σ w_i W_i G_i) S⁻¹ with S = Σ w_i G_i, G_i = X_iᵀX_i / tokens. Off the diagonal, G_i is multiplied by
    ``shrink``: 1 is the exact least-squares solution, 0 weighs every input column by itself. Solved in float64, on S
    scaled to a diagonal of 1. Where S is singular (more columns than tokens, dead inputs; eigenvalues below columns ·
    2⁻²³ of the largest, which stored float32 products do not tell from zero) there are many solutions, and W is the one
    closest to the plain weighted average, every column measured by the size of its inputs. Tensors that are no weights
    of linear layers are the plain weighted average. Equal members return themselves exactly.

    Args:
        vectors: strips of whole rows; ``activations()`` gives (M, columns, columns).
        weights: (M,), sum 1.
        parameters: ``shrink``.

    Raises:
        MergeError: activations of another width.

    Source: Jin et al. 2023, arXiv 2212.09849, equation 2 and section 3.2 (shrinking).
    Limits: memory of M + 3 matrices of columns × columns in float64.
    """
    products = vectors.activations()
    if products is None:
        return lambda strip: average(strip.rows, weights)
    columns = vectors.columns
    if products.shape != (vectors.members, columns, columns):
        raise MergeError(
            f"Tensor {vectors.name} of shape {list(vectors.shape)} does not fit its activations of shape "
            f"{list(products.shape)}; they were gathered from another model."
        )
    grams, shrink = torch.from_numpy(products), float(parameters["shrink"])
    with _one_thread():
        inverse = _inverse_of_sum(grams, weights, shrink)

    def combine(strip: Strip) -> torch.Tensor:
        rows = strip.rows.view(len(strip.rows), -1, columns)
        centre = average(strip.rows, weights).view(-1, columns)
        total = torch.zeros_like(centre, dtype=torch.float64, device="cpu")
        with _one_thread():
            for row, gram, weight in zip(rows, grams, weights.tolist(), strict=True):
                if weight:
                    difference = (row - centre).to(total)
                    total.addmm_(difference, gram, alpha=weight * shrink)
                    total.addcmul_(difference, gram.diagonal(), value=weight * (1 - shrink))
            moved = total @ inverse
        return (centre + moved.to(centre)).view(-1)

    return combine


def average(rows: torch.Tensor, weights: F64) -> torch.Tensor:
    """Σ w_i row_i of (M, n) rows as row_0 + Σ w_i (row_i - row_0), so that equal rows come out exactly; (n,)."""
    shares = torch.as_tensor(weights, dtype=rows.dtype, device=rows.device)
    return _around_first(rows, shares[:, None].expand(-1, rows.shape[1]))


def _around_first(rows: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Σ share_i row_i for (M, n) shares that sum to 1."""
    total = rows[0].clone()
    for row, share in zip(rows[1:], shares[1:], strict=True):
        total += (row - rows[0]) * share
    return total


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Products and factorisations of matrices on one thread: their last digits depend on how they are divided."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _inverse_of_sum(grams: torch.Tensor, weights: F64, shrink: float) -> torch.Tensor:
    """S⁻¹ of S = Σ w_i G_i, shrunk, of (M, columns, columns) products."""
    total = torch.zeros_like(grams[0])
    for gram, weight in zip(grams, weights.tolist(), strict=True):
        total.add_(gram, alpha=weight)
    diagonal = total.diagonal().clone()
    total.mul_(shrink).diagonal().copy_(diagonal)
    scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)
    total.mul_(scale[:, None]).mul_(scale)
    return _inverse(total).mul_(scale[:, None]).mul_(scale)


def _inverse(correlation: torch.Tensor) -> torch.Tensor:
    """Inverse of a positive semi-definite matrix with a diagonal of 1 (0 for dead inputs); pseudo-inverse if singular.

    Cholesky's inverse is taken when the matrix is further from a singular one than the rounding of float32; the
    diagonal of dead inputs is overwritten.
    """
    dead = correlation.diagonal() <= 0
    correlation.diagonal()[dead] = 1.0
    factor, failed = torch.linalg.cholesky_ex(correlation)
    result = torch.cholesky_inverse(factor)
    if int(failed) or not _norm(correlation) * _norm(result) * SINGLE_EPS < 1:
        values, basis = torch.linalg.eigh(correlation)
        kept = values > len(values) * SINGLE_EPS * values[-1]
        result = (basis[:, kept] / values[kept]) @ basis[:, kept].T
    result[dead] = 0.0
    result[:, dead] = 0.0
    return result


def _norm(matrix: torch.Tensor) -> float:
    """Largest sum of absolute values of a column; the product with the inverse's is the condition number."""
    return float(matrix.abs().sum(dim=0).max())


METHODS = (
    Method(
        name="fisher",
        summary="Average every element by how much each member's loss depends on it.",
        formula="Σ w_i F_i t_i / Σ w_i F_i per element; F_i: diagonal Fisher information on a sample of the data",
        source="Matena & Raffel 2021, arXiv 2111.09832",
        base="ignored",
        cost="a backward pass of every member over the sample, once; then one pass over members and their Fisher",
        use="members trained on different data, and a sample of all of it is at hand",
        prepare=prepare_fisher,
        needs=frozenset({"fisher"}),
    ),
    Method(
        name="regmean",
        summary="Least squares per linear layer: outputs as close as possible to each member's own.",
        formula="(Σ w_i t_i G_i)(Σ w_i G_i)⁻¹ per linear layer, G_i: mean xxᵀ of its inputs; else Σ w_i t_i",
        source="Jin et al. 2023, arXiv 2212.09849",
        base="ignored",
        cost="a forward pass of every member over the sample, once; then M + 1 matrix products per linear layer",
        use="members that have drifted far apart, where plain averages lose much",
        prepare=prepare_regmean,
        needs=frozenset({"activations"}),
        by_rows=True,
        least_rows=ROWS,
    ),
)
