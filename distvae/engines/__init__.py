"""Gradients of the models by hand: on the CPU by compiled loops, on a GPU in fixed shapes.

Autograd computes the same, up to rounding; the tests compare with it.
"""

from distvae.engines.choice import choose_engine

__all__ = ["choose_engine"]
