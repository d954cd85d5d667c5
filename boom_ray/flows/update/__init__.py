"""New data for a model that exists."""
