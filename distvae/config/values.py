"""Types of the values of a configuration."""

from typing import Annotated, Literal

from distvae.config.schema import Range

Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Trials = Annotated[int, Range(1, 10_000)]
"""Trials of a sweep. Samplers read all earlier trials before each new trial."""
Repeats = Annotated[int, Range(1, 1000)]
"""Runs with different seeds, for a trial or for a row of a table."""
Processes = Annotated[int, Range(1, 1024)]
"""Threads or processes on one machine."""
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Probability = Annotated[float, Range(1e-6, 1 - 1e-6)]
Widths = tuple[Count, ...]
POWER_FLOOR = 1e-10
"""The smallest power of a frequency bin. Without this floor, the density of a zero grows without
bound as its mean falls.
"""
Activation = Literal["tanh", "relu", "leaky_relu", "silu"]
TVAEActivation = Literal["tanh", "relu", "leaky_relu"]
Restoring = Literal["mean", "draws"]
"""Which decoding of a posterior a restoration uses."""
FrequencyScale = Literal["linear", "log", "mel"]
