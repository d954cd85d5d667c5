"""BOOM for text-embedding models on Ray: bags, members, merges, scores (see README.md and docs/)."""

import time

IMPORTED = time.monotonic()
"""When this process began with the package; its imports take seconds."""
