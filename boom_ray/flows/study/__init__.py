"""The comparison of ways to make a model, over seeds."""
