"""Reproducible numbers: random draws, schedules of rows, matrix products, sparsity."""
