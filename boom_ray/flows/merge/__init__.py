"""Models that exist are merged and scored."""
