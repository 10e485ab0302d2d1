"""Random draws in buffers: a step is recorded once (CUDA graph) and replayed with new draws."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from distvae.numerics.noise import Noise, Stream

Kind = Literal["bits", "uniform", "normal"]
Draw = tuple[Kind, Stream, tuple[int, ...]]
"""A method of `Noise` with its arguments: the stream and the shape."""


def draw(noise: Noise, wanted: Draw) -> Tensor:
    """Return one of the draws of some rows."""
    kind, stream, shape = wanted
    values: Tensor = getattr(noise, kind)(stream, *shape)
    return values


@dataclass(frozen=True, slots=True)
class Asked(Noise):
    """Draws that another object is asked for."""

    def find(self, wanted: Draw) -> Tensor:
        """Return one of the draws."""
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
    """The draws of rows, with a note of each that is asked for."""

    whole: Noise
    asked: dict[Draw, None] = field(default_factory=dict)

    def find(self, wanted: Draw) -> Tensor:
        """Return one of the draws, and note it."""
        self.asked[wanted] = None
        return draw(self.whole, wanted)


@dataclass(frozen=True, slots=True)
class Given(Asked):
    """Draws that are read from memory; no others can be asked for."""

    values: Mapping[Draw, Tensor]

    def find(self, wanted: Draw) -> Tensor:
        """Return one of the draws."""
        return self.values[wanted]
