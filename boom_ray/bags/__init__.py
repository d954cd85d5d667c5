"""Bags: which examples each member sees, and in which steps."""
