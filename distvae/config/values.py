"""What the values of a configuration may be."""

from typing import Annotated, Literal

from distvae.config.schema import Range

Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Trials = Annotated[int, Range(1, 10_000)]
"""Of a sweep, all of which its samplers look at before each."""
Repeats = Annotated[int, Range(1, 1000)]
"""Runs of a trial, or of a row of a table, each with another seed."""
Processes = Annotated[int, Range(1, 1024)]
"""Threads, or processes, of one machine."""
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Probability = Annotated[float, Range(1e-6, 1 - 1e-6)]
Widths = tuple[Count, ...]
POWER_FLOOR = 1e-10
"""The least power of a bin, to models and to measures: the density of a zero grows without bound as
its mean falls.
"""
Activation = Literal["tanh", "relu", "leaky_relu"]
