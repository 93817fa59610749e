"""Measurements: evaluations, predictions, certificates, and comparisons of solvers."""
