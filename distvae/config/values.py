"""What the values of a configuration may be."""

from typing import Annotated, Literal

from distvae.schema import Range

Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Probability = Annotated[float, Range(1e-6, 1 - 1e-6)]
Widths = tuple[Count, ...]
Activation = Literal["tanh", "relu", "leaky_relu"]
