"""Merge methods: pure functions of the vectors of one tensor. `boom_ray.merging.methods.registry` lists them all."""
