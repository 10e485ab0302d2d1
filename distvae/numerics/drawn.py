"""Random draws made for many rows or streams at once, and then handed out in parts.

A draw is a function of seed, epoch, row and its place in a stream. Drawing many values at once
therefore gives the same values as drawing them one by one, with far fewer operations on a GPU.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from distvae.numerics.given import Asked, Draw, draw
from distvae.numerics.noise import Noise, Stream, mix, weyl_sequence

Known: TypeAlias = dict[Draw, Tensor]


@dataclass(frozen=True, slots=True)
class Planned(Noise):
    """The draws of some rows. The first words of some streams are precomputed."""

    known: Mapping[Stream, Tensor] = field(default_factory=dict)
    """The precomputed words (B, n) of each stream."""

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        count, known = math.prod(shape), self.known.get(stream)
        if known is None or known.shape[1] < count:
            return Noise.bits(self, stream, *shape)
        return known[:, :count].view(-1, *shape)


def draw_ahead(noise: Noise, counts: Mapping[Stream, int]) -> Planned:
    """Draw `counts[stream]` words of each stream at once."""
    wanted = {stream: count for stream, count in counts.items() if count}
    if not wanted:
        return Planned(noise.seed, noise.epoch, noise.row)
    starts = mix(torch.stack([noise.seeds(stream) for stream in wanted], 1))
    counter = weyl_sequence(max(wanted.values()), noise.row.device)
    words = [
        start[:, None] + counter[:count]
        for start, count in zip(starts.unbind(1), wanted.values(), strict=True)
    ]
    drawn = mix(torch.cat(words, 1)).split(list(wanted.values()), 1)
    return Planned(noise.seed, noise.epoch, noise.row, dict(zip(wanted, drawn, strict=True)))


@dataclass(frozen=True, slots=True)
class Part(Asked):
    """The draws of a slice of rows. The first request draws for all rows of `whole` at once."""

    whole: Noise
    first: int
    known: Known

    def find(self, wanted: Draw) -> Tensor:
        """Return a draw for the rows of this slice."""
        if wanted not in self.known:
            self.known[wanted] = draw(self.whole, wanted)
        return self.known[wanted][self.first : self.first + len(self.row)]
