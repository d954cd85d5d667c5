"""The evaluation stage: mteb tasks, from mteb or from folders, on Ray actors, cached by weights and task."""
