"""Sweeps: a search over bags, training, merge methods and weights, in which members are trained once."""
