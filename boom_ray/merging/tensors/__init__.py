"""The vectors of one tensor: strips, inner products, magnitudes, random masks; the arithmetic below the methods."""
