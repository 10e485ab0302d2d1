"""Benchmarks: one module for each claim about speed."""
