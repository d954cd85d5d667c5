"""The one Arrow schema of all examples, as text (Parquet) and as tokens (memory-mapped Arrow IPC).

Rows of both are sorted by ``id``, row i of the one is row i of the other.
"""

from __future__ import annotations

import pyarrow as pa

ID = pa.binary(16)

EXAMPLES = pa.schema(
    [
        pa.field("id", ID, nullable=False),  # hash of the content, see `boom_ray.hashing.text_id`
        pa.field("query", pa.string(), nullable=False),
        pa.field("positives", pa.list_(pa.string()), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("score", pa.float32()),  # graded similarity in [0, 1] of a scored pair
        pa.field("label", pa.string()),  # of a classification or clustering example
        pa.field("instruction", pa.string()),  # per-row, replaces the dataset's
        pa.field("positive_scores", pa.list_(pa.float32())),  # a teacher's, as many as positives
        pa.field("negative_scores", pa.list_(pa.float32())),  # a teacher's, as many as negatives
    ]
)

_TOKENS = pa.list_(pa.int32())

TOKENS = pa.schema(
    [
        pa.field("id", ID, nullable=False),
        pa.field("query", _TOKENS, nullable=False),  # prompt and special tokens included
        pa.field("positives", pa.list_(_TOKENS), nullable=False),
        pa.field("negatives", pa.list_(_TOKENS), nullable=False),
        pa.field("query_key", pa.uint64(), nullable=False),  # hash of the text: equal texts in a step are no negatives
        pa.field("positive_keys", pa.list_(pa.uint64()), nullable=False),
        pa.field("negative_keys", pa.list_(pa.uint64()), nullable=False),
        pa.field("label_key", pa.uint64()),  # hash of the label, null without one
        pa.field("score", pa.float32()),
        pa.field("positive_scores", pa.list_(pa.float32())),
        pa.field("negative_scores", pa.list_(pa.float32())),
    ]
)
