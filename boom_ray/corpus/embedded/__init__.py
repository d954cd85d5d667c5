"""The built-in text: docstrings and source of installed packages as training datasets and test sets.

Nothing is downloaded and nothing is imported: files are read with `ast` (DESIGN.md section 7).
"""

from boom_ray.corpus.embedded.artifact import dataset_path, embedded_artifact, evaluation_path

__all__ = ["dataset_path", "embedded_artifact", "evaluation_path"]
