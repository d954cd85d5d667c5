"""The search over bags, training and merging."""
