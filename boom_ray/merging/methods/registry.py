"""All merge methods by name."""

from __future__ import annotations

from collections.abc import Mapping

from boom_ray.merging.methods import averages, consensus, data, positioning, sparse, spheres, stock
from boom_ray.merging.methods.method import Method

METHODS: Mapping[str, Method] = {
    method.name: method
    for module in (averages, spheres, stock, sparse, consensus, data, positioning)
    for method in module.METHODS
}
