"""Evaluations: each takes a model's functions and yields (name, value)."""
