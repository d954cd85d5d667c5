"""Members: the training loop, its Ray Train worker, and the fan-out over a cluster."""
