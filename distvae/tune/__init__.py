"""Sweeps: what varies, and trying it.

`distvae.tune("demo", data)` runs a sweep. `help(distvae.interactive.tune)` names its parameters.
"""
