"""Settings that encoders and decoders share."""

from dataclasses import dataclass
from typing import Annotated, Literal

from distvae.config.schema import Range
from distvae.config.values import Activation, Widths


@dataclass(frozen=True)
class Net:
    """Hidden layers, with convolutions for images if requested."""

    hidden: Widths = (128,)
    """Widths of the hidden layers."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers. `silu` is slower on a CPU."""
    net: Literal["flat", "conv"] = "flat"
    """`conv` puts convolutions of stride 2 between an image and the hidden layers, and transposed
    convolutions where a decoder produces the image.
    """
    channels: Widths = (32, 32, 64, 64)
    """Channels of the convolutions, from the image inwards."""
    kernel: Annotated[int, Range(2, 15)] = 4
    """Height and width of the kernel of each convolution."""
