"""What encoders and decoders are made of."""

from dataclasses import dataclass
from typing import Annotated, Literal

from distvae.config.schema import Range
from distvae.config.values import Activation, Widths


@dataclass(frozen=True)
class Net:
    """Hidden layers, of images perhaps behind convolutions."""

    hidden: Widths = (128,)
    """Widths of the hidden layers."""
    activation: Activation = "tanh"
    net: Literal["flat", "conv"] = "flat"
    """`conv`: convolutions of stride 2 between an image and the hidden layers, transposed ones
    where it is made.
    """
    channels: Widths = (32, 32, 64, 64)
    """Of these convolutions, from the image inwards."""
    kernel: Annotated[int, Range(2, 15)] = 4
    """Height and width of each of them."""
