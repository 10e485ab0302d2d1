"""Benchmarks behind the claims of README and docs: `python -m benchmarks.steps --help`."""
