"""Sweeps: what varies, and trying it."""
