"""Studies: several ways of making a model compared over seeds and tasks; pure functions from scores to a report."""
