"""Benchmarks beside other programs that train the same models."""
