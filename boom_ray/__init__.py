"""BOOM for text-embedding models on Ray: bags, members, merges, scores (see README.md and docs/)."""
