"""Compositions of the stages: what a job runs from beginning to end."""
