"""Several corpora as one, without reading any of their texts again."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.corpus.ingest import CORPUS, FORMAT
from boom_ray.errors import DataError
from boom_ray.hashing import digest
from boom_ray.store import Artifact, Draft, Store


def union(store: Store, corpora: Sequence[Artifact]) -> Artifact:
    """The corpus of all datasets of several corpora.

    It is the very artifact that `boom_ray.corpus.ingest.ingest` gives for all these datasets at once, so it does not
    matter in which order, and in how many steps, datasets came.

    Args:
        store: holds the corpora; takes the union.
        corpora: as `boom_ray.corpus.ingest.ingest` or this function gives them.

    Raises:
        DataError: two of them have different datasets of one name.
    """
    spec = {name: facts for corpus in corpora for name, facts in corpus.spec.items()}
    inputs = {name: content for corpus in corpora for name, content in corpus.inputs.items()}
    for corpus in corpora:
        changed = next((name for name in corpus.spec if corpus.spec[name] != spec[name]), None)
        if changed is not None:
            raise DataError(f"There are two datasets called {changed}. Give the new one another name.")

    def build(draft: Draft) -> None:
        tables = {name: table for corpus in corpora for name, table in corpus.figures["datasets"].items()}
        parts = {name: keys for corpus in corpora for name, keys in corpus.figures["parts"].items()}
        draft.figures = {"datasets": tables, "parts": parts}
        draft.fingerprint = digest(inputs)

    return store.materialize(CORPUS, spec, inputs, build, FORMAT)
