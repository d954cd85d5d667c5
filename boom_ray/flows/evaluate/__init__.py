"""Models are scored on tasks and compared."""
