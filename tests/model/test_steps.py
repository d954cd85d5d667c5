from __future__ import annotations

import numpy as np

from boom_ray.model.steps import pad


def test_pad():
    ids, mask = pad([np.array([5, 6, 7], np.int32), np.array([8], np.int32)], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
