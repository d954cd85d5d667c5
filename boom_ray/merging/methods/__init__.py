"""Merge methods: pure functions of the vectors of one tensor. `boom_ray.merging.registry` lists them all."""
