"""Losses that follow a teacher's scores of an example's own passages.

A passage takes part if it is present and has a teacher's score; no other passage of the step does.
"""

from __future__ import annotations

import torch


def kl(
    cosines: torch.Tensor, teacher: torch.Tensor, present: torch.Tensor, temperature: float, teacher_temperature: float
) -> torch.Tensor:
    """Mean over examples of KL(teacher ‖ student) between softmax distributions over an example's passages.

    teacher_i = softmax(t_i/T), student_i = softmax(cos_i/τ). Over steps in which every passage has a score this is

    - FlagEmbedding's ``kl_div`` (its teacher has T = 1) less the teacher's entropy, a constant; it adds InfoNCE to it,
      which is contrastive_weight 1;
    - sentence-transformers' DistillKLDivLoss with cosines, student_temperature τ and teacher_temperature T, divided by
      τ², by which that loss is multiplied.

    Args:
        cosines: (B, 1+K) of query and passages.
        teacher: (B, 1+K) its scores, such as logits of a cross-encoder; NaN where there is none.
        present: (B, 1+K) bool; False for absent negatives.
        temperature: τ > 0 of the student.
        teacher_temperature: T > 0.

    Returns:
        Scalar ≥ 0: the mean over those examples of which at least two passages take part, 0 if there are none.
    """
    known = present & ~teacher.isnan()
    lowest = torch.finfo(cosines.dtype).min  # not −inf, whose differences are NaN
    wanted = (teacher.to(cosines.dtype) / teacher_temperature).masked_fill(~known, lowest).log_softmax(1)
    found = (cosines / temperature).masked_fill(~known, lowest).log_softmax(1)
    terms = (wanted.exp() * (wanted - found)).masked_fill(~known, 0)
    return _mean(terms.sum(1), known.sum(1) >= 2)


def margin_mse(cosines: torch.Tensor, teacher: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean square of ((cos⁺ − cos⁻) − (t⁺ − t⁻)) over negatives (Hofstätter et al. 2020, arXiv 2010.02666).

    Equal to sentence-transformers' MarginMSELoss with cosines. Differences of cosines lie in [−2, 2], so a teacher's
    scores should be on the scale of cosines, or in [0, 1]: those of another embedding model, or probabilities of a
    cross-encoder. Logits are out of reach; use `kl` for them.

    Args:
        cosines: (B, 1+K) of query and passages, the positive first.
        teacher: (B, 1+K) its scores; NaN where there is none.
        present: (B, 1+K) bool; False for absent negatives.

    Returns:
        Scalar ≥ 0: the mean over all negatives that take part together with their positive, 0 if there are none.
    """
    known = present & ~teacher.isnan()
    pairs = known[:, :1] & known[:, 1:]
    wanted = teacher.to(cosines.dtype).masked_fill(~known, 0)
    errors = (cosines[:, :1] - cosines[:, 1:]) - (wanted[:, :1] - wanted[:, 1:])
    return _mean(errors.square(), pairs)


def _mean(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean of those that are counted, 0 if none is; the host does not wait for their number."""
    return values.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)
