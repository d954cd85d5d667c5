"""The main job: corpus, bags, members, merge, scores."""
