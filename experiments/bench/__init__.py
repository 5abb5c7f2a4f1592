"""Benchmarks: what we claim about speed, and how it was measured."""
