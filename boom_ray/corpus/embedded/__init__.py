"""The built-in text: docstrings and source of installed packages as training datasets and test sets.

Nothing is downloaded and nothing is imported: files are read with `ast` (DESIGN.md section 7).
"""

from boom_ray.corpus.embedded.artifact import embedded_artifact

__all__ = ["embedded_artifact"]
