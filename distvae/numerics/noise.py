"""Counter-based randomness: every draw depends only on seed, epoch, row and place in a stream.

The block size, the order of batches and the number of processes therefore change no draw. Draws
that are made for many rows or streams at once equal draws that are made one by one, with far fewer
operations on a GPU.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Stream = Literal["slab", "spike", "order", "choice", "state", "parent", "child", "sample"]
STREAMS = {name: i for i, name in enumerate(get_args(Stream), 1)}
VALIDATION = -1  # the epoch number of validation, which uses the same draws every time
EVALUATION = -2  # the epoch number of encoding, sampling and resynthesis
RESTORATION = -1000  # the first of the epoch numbers of a restoration, which count down
SHORT = 65536  # the longest sequence of counters that is cached

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
MIX = (-4658895280553007687, -7723592293110705685)  # SplitMix64's finaliser


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift right logically. Torch has only the arithmetic shift for signed integers."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser (Steele, Lea and Flood 2014).

    It is a bijection of 64-bit words, and passes BigCrush on counters.
    """
    z = (z ^ _shift(z, 30)).mul_(MIX[0])
    z = z.bitwise_xor_(_shift(z, 27)).mul_(MIX[1])
    return z.bitwise_xor_(_shift(z, 31))


@lru_cache(maxsize=64)
def _key(*words: int) -> int:
    """Return one signed 64-bit key for a few integers."""
    sequence = np.random.SeedSequence([word % 2**64 for word in words])
    state = sequence.generate_state(1, np.uint64)
    return int(state[0].astype(np.int64))


def weyl_sequence(count: int, device: torch.device) -> Tensor:
    """Return the first multiples of SplitMix64's odd constant: the counters of a row's draws.

    Short sequences are cached and shared, so callers must not modify the result.
    """
    make = _short_sequence if count <= SHORT else _sequence
    return make(count, device)


def _sequence(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device).mul_(GOLDEN)


_short_sequence = lru_cache(maxsize=16)(_sequence)


@dataclass(frozen=True, slots=True)
class Noise:
    """The random draws of some rows in one epoch."""

    seed: int
    epoch: int
    row: Tensor
    """(B,) the index of each row in its dataset."""

    def part(self, rows: slice) -> "Noise":
        """Return the draws of a slice of the rows."""
        return Noise(self.seed, self.epoch, self.row[rows])

    def seeds(self, stream: Stream) -> Tensor:
        """Return (B,) the seed of each row for a stream, before mixing."""
        return self.row.long() + _key(self.seed, self.epoch, STREAMS[stream])

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        start = mix(self.seeds(stream))
        counter = weyl_sequence(math.prod(shape), self.row.device)
        return mix(start[:, None] + counter).view(-1, *shape)

    def uniform(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) uniform numbers in the open interval (0, 1)."""
        return unit(self.bits(stream, *shape))

    def normal(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) standard normal numbers.

        The Box-Muller transform is applied to the two halves of one word.
        """
        bits = self.bits(stream, *shape)
        radius = unit(bits).log_().mul_(-2).sqrt_()
        angle = _middle(bits & 0x7FFFFF).mul_(2 * math.pi)
        return radius.mul_(angle.cos_())


Draw = tuple[Literal["bits", "uniform", "normal"], Stream, tuple[int, ...]]
"""A method of `Noise` with its arguments: the stream and the shape."""


def draw(noise: Noise, wanted: Draw) -> Tensor:
    """Make a draw for some rows."""
    method, stream, shape = wanted
    values: Tensor = getattr(noise, method)(stream, *shape)
    return values


@dataclass(frozen=True, slots=True)
class FoundNoise(Noise):
    """The draws of some rows, each found by a function: for example, read from a buffer that a
    recorded step reads.
    """

    find: Callable[[Draw], Tensor]

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        return self.find(("bits", stream, shape))

    def uniform(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) uniform numbers in the open interval (0, 1)."""
        return self.find(("uniform", stream, shape))

    def normal(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) standard normal numbers."""
        return self.find(("normal", stream, shape))


def noise_of_part(whole: Noise, rows: slice, drawn: dict[Draw, Tensor]) -> FoundNoise:
    """Return the draws of a slice of rows.

    The first request draws for all rows at once; `drawn` keeps that draw for all slices.
    """

    def find(wanted: Draw) -> Tensor:
        if wanted not in drawn:
            drawn[wanted] = draw(whole, wanted)
        return drawn[wanted][rows]

    return FoundNoise(whole.seed, whole.epoch, whole.row[rows], find)


@dataclass(frozen=True, slots=True)
class DrawnAhead(Noise):
    """The draws of some rows. The first words of some streams are precomputed."""

    words: Mapping[Stream, Tensor] = field(default_factory=dict)
    """The precomputed words (B, n) of each stream."""

    def bits(self, stream: Stream, *shape: int) -> Tensor:
        """Return (B, *shape) independent uniform 64-bit words."""
        count, words = math.prod(shape), self.words.get(stream)
        if words is None or words.shape[1] < count:
            return Noise.bits(self, stream, *shape)
        return words[:, :count].view(-1, *shape)


def draw_ahead(noise: Noise, counts: Mapping[Stream, int]) -> DrawnAhead:
    """Draw `counts[stream]` words of each stream at once."""
    wanted = {stream: count for stream, count in counts.items() if count}
    if not wanted:
        return DrawnAhead(noise.seed, noise.epoch, noise.row)
    starts = mix(torch.stack([noise.seeds(stream) for stream in wanted], 1))
    counter = weyl_sequence(max(wanted.values()), noise.row.device)
    words = [
        start[:, None] + counter[:count]
        for start, count in zip(starts.unbind(1), wanted.values(), strict=True)
    ]
    drawn = mix(torch.cat(words, 1)).split(list(wanted.values()), 1)
    return DrawnAhead(noise.seed, noise.epoch, noise.row, dict(zip(wanted, drawn, strict=True)))


def unit(words: Tensor) -> Tensor:
    """Return uniform numbers in the open interval (0, 1), from the high bits of random words."""
    return _middle(_shift(words, 41))


def _middle(word: Tensor) -> Tensor:
    """Map a 23-bit word to the middle of its cell in (0, 1). Exact in float32, never 0 or 1."""
    return word.float().add_(0.5).mul_(2.0**-23)


def row_keys(x: Tensor) -> Tensor:
    """Return a hash (B,) of the float32 values of each row.

    Used in place of row numbers, it makes draws independent of the order of rows. Both signs of
    zero hash alike, and so do all NaNs.
    """
    values = torch.where(x.isnan(), math.nan, x + 0.0)
    bits = values.contiguous().view(torch.int32).long()
    return mix((bits * weyl_sequence(x.shape[1], x.device)).sum(1))


def order_key(seed: int, epoch: int) -> int:
    """Return the key of an epoch's order of rows, for orders that are computed place by place."""
    return _key(seed, epoch, STREAMS["order"])


def order(seed: int, epoch: int, rows: int, *lane: int) -> np.ndarray:
    """Return the order of the rows of a dataset or a lane in an epoch: a permutation."""
    words = [seed, epoch % 2**64, STREAMS["order"], *lane]
    return np.random.default_rng(np.random.SeedSequence(words)).permutation(rows)
