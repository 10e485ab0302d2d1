"""Sweeps: search spaces, and trials of their settings.

`distvae.tune("demo", data)` runs a sweep. `help(distvae.interactive.tune)` names its parameters.
"""
