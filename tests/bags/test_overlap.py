from __future__ import annotations

import numpy as np

from boom_ray.bags.overlap import overlap


def test_shares_and_coverage_by_hand():
    bags = {
        "x": {"a": np.array([0, 1, 2, 3]), "b": np.array([0])},
        "y": {"a": np.array([2, 3, 4, 4]), "b": np.array([], dtype=np.int64)},
    }
    result = overlap(bags, {"a": 8, "b": 2})
    assert result.sizes == {"x": 5, "y": 3}
    np.testing.assert_allclose(result.shared, [[1, 2 / 5], [2 / 3, 1]])
    assert result.coverage == 6 / 10
