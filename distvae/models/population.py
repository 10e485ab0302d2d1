"""Binary states, 64 to a word: pure functions on tensors of shape (..., W), W = ceil(H / 64).

A state's key is a 64-bit hash of its words. Equal states have equal keys; that two different ones
of the hundred thousand of a block share one has a probability below 1e-9, and would cost a
candidate, nothing else.

On the CPU some of this is done by compiled loops, if numba is installed, with the same results.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from distvae.models.gradients import kernels, row_sums
from distvae.numerics.noise import mix

BITS = 64
FEW = 0.25  # share of active bits up to which adding up rows beats a matrix product


@lru_cache
def _places(device: torch.device) -> Tensor:
    """Return the words with one bit active each, made once on every device."""
    return torch.ones(BITS, dtype=torch.int64, device=device) << torch.arange(BITS, device=device)


def words_of(latent: int) -> int:
    """Return the number of words of a state of so many bits."""
    return -(-latent // BITS)


def pack(states: Tensor) -> Tensor:
    """Pack zeros and ones (..., H) into words (..., W)."""
    padding = words_of(states.shape[-1]) * BITS - states.shape[-1]
    padded = functional.pad(states.long(), (0, padding))
    words: Tensor = (padded.unflatten(-1, (-1, BITS)) * _places(states.device)).sum(-1)
    return words


def unpack(words: Tensor, latent: int) -> Tensor:
    """Unpack words (..., W) into booleans (..., H)."""
    bits = words.unsqueeze(-1).bitwise_and(_places(words.device)) != 0
    return bits.flatten(-2)[..., :latent]


def flip(words: Tensor, bit: Tensor) -> Tensor:
    """Return the states with one bit flipped, of which the place is given for each state."""
    place = torch.arange(words.shape[-1], device=words.device)
    mask = _places(words.device)[bit.remainder(BITS)].unsqueeze(-1)
    return words ^ mask.where(place == bit.div(BITS, rounding_mode="floor").unsqueeze(-1), 0)


def holds(words: Tensor, bit: Tensor) -> Tensor:
    """Return whether a given bit of each state is active."""
    word = words.gather(-1, bit.div(BITS, rounding_mode="floor").unsqueeze(-1)).squeeze(-1)
    return (word >> bit.remainder(BITS)).bitwise_and(1).bool()


def below(cut: Tensor, words: int) -> Tensor:
    """Return masks (..., W) of the bits before each cut."""
    first = torch.arange(words, device=cut.device) * BITS
    inside = (cut.unsqueeze(-1) - first).clamp(0, BITS)
    partial = (_places(cut.device)[inside.clamp_max(BITS - 1)]) - 1
    return partial.where(inside < BITS, -1)


def keys(words: Tensor) -> Tensor:
    """Return a hash (...) of each state."""
    key = torch.zeros(words.shape[:-1], dtype=torch.int64, device=words.device)
    for word in words.unbind(-1):
        key = mix(key + word)
    return key


def repeated(words: Tensor) -> Tensor:
    """Return whether an equal state is earlier in the row of (B, C, W), as (B, C)."""
    if loops := kernels(words):
        return torch.from_numpy(loops.repeated(words.numpy()))
    ordered, place = keys(words).sort(dim=1, stable=True)
    again = torch.zeros_like(place, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter_(1, place, again)


def keep_best(
    words: Tensor, value: Tensor, count: int, ranked: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the `count` distinct states of largest value in each row of (B, C, W), and their
    places.

    Of equal states the earliest is kept. With `ranked` the best comes first; otherwise the order is
    arbitrary.
    """
    place = value.masked_fill(repeated(words), -torch.inf).topk(count, dim=1, sorted=ranked).indices
    return take(words, place), place


def take(words: Tensor, place: Tensor) -> Tensor:
    """Return the states (B, K, W) at places (B, K) of each row."""
    return words.gather(1, place.unsqueeze(-1).expand(-1, -1, words.shape[-1]))


def tabulate(words: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct states (U, W) of (B, S, W), and the place (B, S) of each there."""
    flat = words.flatten(0, 1)
    if loops := kernels(words):
        distinct, place = map(torch.from_numpy, loops.tabulate(flat.numpy()))
        return distinct, place.view(words.shape[:2])
    key, place = keys(words).unique(return_inverse=True)
    distinct = words.new_zeros(len(key), words.shape[-1])
    distinct[place.flatten()] = flat
    return distinct, place


def padded(rows: Tensor) -> Tensor:
    """Append rows of zeros up to a multiple of 64, so that products on them have few shapes."""
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, -len(rows) % BITS))


def heaviest(place: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states that weigh more than the precision of numbers in any row.

    They come as places in the table of `count` states, with the place of each kept state of each
    row among them, and its weight, which is zero for the states left out.
    """
    least = torch.finfo(weight.dtype).eps
    if loops := kernels(weight):
        found = loops.heaviest(place.numpy(), weight.numpy(), count, least)
        heavy, moved, kept = map(torch.from_numpy, found)
        return heavy, moved, kept
    counts = weight > least
    used = torch.zeros(count, dtype=torch.bool, device=place.device).index_fill_(
        0, place[counts], True
    )
    used[:1] |= ~used.any()  # of weights that are no numbers: places point at the first state
    moved = (used.cumsum(0) - 1)[place].where(counts, 0)
    return used.nonzero()[:, 0], moved, weight.where(counts, 0)


@dataclass(frozen=True, slots=True)
class States:
    """Binary states, on which a linear layer adds up those rows of its weights whose bits are
    active.
    """

    words: Tensor
    """(U, W)"""
    latent: int

    def split(self, count: int) -> Iterator["States"]:
        """Yield parts of so many states."""
        return (States(words, self.latent) for words in self.words.split(count))

    def __len__(self) -> int:
        return len(self.words)

    def linear(self, rows: Tensor, shift: Tensor) -> Tensor:
        """Return the sum (U, K) of the rows (H, K) at active bits, and a shift (K,)."""
        loops = kernels(rows)
        if loops and loops.active(self.words.numpy()) < FEW * len(self) * self.latent:
            return row_sums(rows, shift, self.words)
        return torch.addmm(shift, self.dense(rows.dtype), rows)

    def mean(self, place: Tensor, weight: Tensor) -> Tensor:
        """Return the sum (B, H) of the states at places (B, S), weighted by (B, S)."""
        if loops := kernels(weight):
            operands = (t.detach().numpy() for t in (place, weight, self.words))
            return torch.from_numpy(loops.mean(*operands, self.latent))
        table = self.dense(weight.dtype)
        return functional.embedding_bag(place, table, per_sample_weights=weight, mode="sum")

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return zeros and ones (U, H)."""
        loops = kernels(self.words)
        if not loops:
            return unpack(self.words, self.latent).to(dtype)
        table = torch.empty(len(self), self.latent, dtype=dtype)
        loops.dense(self.words.numpy(), table.numpy())
        return table
