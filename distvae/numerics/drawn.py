"""Draws that are made once, for many rows or many purposes, and then handed out in parts.

A draw is a function of seed, epoch, row and its place in a stream. What is drawn together therefore
has the values that it has when drawn one by one, and costs a GPU a fraction of the operations.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from distvae.numerics.noise import Noise, Stream, mix, weyl_sequence

Kind = Literal["bits", "uniform", "normal"]
Known: TypeAlias = dict[tuple[Kind, Stream, tuple[int, ...]], Tensor]


@dataclass(frozen=True, slots=True)
class Planned(Noise):
    """The draws of rows, of which the first few of some streams are known."""

    known: Mapping[Stream, Tensor] = field(default_factory=dict)
    """(B, n) by stream."""

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        count, known = math.prod(shape), self.known.get(stream)
        if known is None or known.shape[1] < count:
            return Noise.bits(self, stream, *shape)
        return known[:, :count].view(-1, *shape)


def draw_ahead(noise: Noise, counts: Mapping[Stream, int]) -> Planned:
    """Draw so many words of each stream at once."""
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
class Part(Noise):
    """The draws of some rows of many, made for all of them when first asked for."""

    whole: Noise
    first: int
    known: Known

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        return self._part("bits", self.whole.bits, stream, shape)

    def uniform(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) uniform numbers in the open interval (0, 1)."""
        return self._part("uniform", self.whole.uniform, stream, shape)

    def normal(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) standard normal numbers."""
        return self._part("normal", self.whole.normal, stream, shape)

    def _part(
        self, kind: Kind, draw: Callable[..., Tensor], stream: Stream, shape: tuple[int, ...]
    ) -> Tensor:
        key = (kind, stream, shape)
        if key not in self.known:
            self.known[key] = draw(stream, *shape)
        return self.known[key][self.first : self.first + len(self.row)]
