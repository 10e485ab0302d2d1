"""Random draws read from buffers, so that a CUDA graph can be replayed with new draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from distvae.numerics.noise import Noise, Stream

Kind = Literal["bits", "uniform", "normal"]
Draw = tuple[Kind, Stream, tuple[int, ...]]
"""A method of `Noise` with its arguments: the stream and the shape."""


def draw(noise: Noise, wanted: Draw) -> Tensor:
    """Make a draw for some rows."""
    kind, stream, shape = wanted
    values: Tensor = getattr(noise, kind)(stream, *shape)
    return values


@dataclass(frozen=True, slots=True)
class Asked(Noise):
    """Draws that a subclass provides by its method `find`."""

    def find(self, wanted: Draw) -> Tensor:
        """Return a draw."""
        raise NotImplementedError

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        return self.find(("bits", stream, shape))

    def uniform(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) uniform numbers in the open interval (0, 1)."""
        return self.find(("uniform", stream, shape))

    def normal(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) standard normal numbers."""
        return self.find(("normal", stream, shape))


@dataclass(frozen=True, slots=True)
class Watched(Asked):
    """The draws of rows. Each requested draw is noted in `asked`."""

    whole: Noise
    asked: dict[Draw, None] = field(default_factory=dict)

    def find(self, wanted: Draw) -> Tensor:
        """Return a draw, and note that it was requested."""
        self.asked[wanted] = None
        return draw(self.whole, wanted)


@dataclass(frozen=True, slots=True)
class Given(Asked):
    """Draws that are read from buffers. Only the draws in `values` are available."""

    values: Mapping[Draw, Tensor]

    def find(self, wanted: Draw) -> Tensor:
        """Return a draw."""
        return self.values[wanted]
