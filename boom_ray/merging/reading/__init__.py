"""Members on disk: their tensors read lazily, adapters folded in, and whether they fit together."""
