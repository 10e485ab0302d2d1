"""Binary states, 64 to a word: pure functions on tensors of shape (..., W), W = ceil(H / 64).

A state's key is a 64-bit hash of its words. In a block of 100 000 states, the probability of a hash
collision is below 1e-9. A collision would lose one candidate state, and nothing else.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from distvae.numerics.noise import mix, weyl_sequence

BITS = 64
MIN_PI = 1e-5  # prior probabilities are clamped to [MIN_PI, 1 - MIN_PI] for their log-odds
LEFT_OUT, NEAR, SAMPLED = 0, 1, 2
"""The part of a state in training. `LEFT_OUT`: the state was improbable when its row was searched.
`NEAR`: the state takes part. `SAMPLED`: the state was improbable, but takes part because its row is
sampled to measure how much weight training leaves out.
"""


@lru_cache
def _places(device: torch.device) -> Tensor:
    """Return the 64 words with one active bit, cached for each device."""
    return torch.ones(BITS, dtype=torch.int64, device=device) << torch.arange(BITS, device=device)


def log_odds(pi: Tensor) -> Tensor:
    """Return the log-odds (H,) of active bits, given their prior probabilities."""
    return pi.logit(MIN_PI)


def words_of(latent: int) -> int:
    """Return the number of words of a state of `latent` bits."""
    return -(-latent // BITS)


def pack(states: Tensor) -> Tensor:
    """Pack zeros and ones (..., H) into words (..., W)."""
    padding = words_of(states.shape[-1]) * BITS - states.shape[-1]
    padded = functional.pad(states.long(), (0, padding))
    words: Tensor = (padded.unflatten(-1, (-1, BITS)) * _places(states.device)).sum(-1)
    return words


def unpack(words: Tensor, latent: int, dtype: torch.dtype = torch.bool) -> Tensor:
    """Unpack words (..., W) into zeros and ones (..., H) of a type, without a separate cast."""
    masked = words.unsqueeze(-1).bitwise_and(_places(words.device)).flatten(-2)[..., :latent]
    return torch.ne(masked, 0, out=torch.empty(masked.shape, dtype=dtype, device=words.device))


def flip(words: Tensor, bit: Tensor) -> Tensor:
    """Flip one bit of each state (..., W), at the places `bit` (...)."""
    return words ^ one_bit(bit, words.shape[-1])


def one_bit(bit: Tensor, words: int) -> Tensor:
    """Return states (..., W) with one active bit, at the places `bit` (...)."""
    word = torch.arange(words, device=bit.device)
    mask = _places(bit.device)[bit.remainder(BITS)].unsqueeze(-1)
    return mask.where(word == bit.div(BITS, rounding_mode="floor").unsqueeze(-1), 0)


def holds(words: Tensor, bit: Tensor) -> Tensor:
    """Return whether the bit at place `bit` (...) of each state is active."""
    word = words.gather(-1, bit.div(BITS, rounding_mode="floor").unsqueeze(-1)).squeeze(-1)
    return (word >> bit.remainder(BITS)).bitwise_and(1).bool()


def below(cut: Tensor, words: int) -> Tensor:
    """Return masks (..., W) of the bits below each cut."""
    first = torch.arange(words, device=cut.device) * BITS
    inside = (cut.unsqueeze(-1) - first).clamp(0, BITS)
    partial = (_places(cut.device)[inside.clamp_max(BITS - 1)]) - 1
    return partial.where(inside < BITS, -1)


def keys(words: Tensor) -> Tensor:
    """Return a hash (...) of each state."""
    return mix(words + weyl_sequence(words.shape[-1], words.device)).sum(-1)


def repeated(words: Tensor) -> Tensor:
    """Return (B, C) whether an equal state is earlier in the same row of words (B, C, W)."""
    ordered, place = keys(words).sort(dim=1, stable=True)
    again = functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return again.scatter(1, place, again)


def keep_best(
    words: Tensor, value: Tensor, count: int, ranked: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the `count` distinct states of largest value in each row of words (B, C, W), and their
    places.

    Of equal states, the earliest state is kept. With `ranked` the states are sorted, best first;
    otherwise they stay in their order.
    """
    place = value.masked_fill(repeated(words), -torch.inf).topk(count, dim=1, sorted=ranked).indices
    if not ranked:
        place = place.sort(1).values
    return take(words, place), place


def take(words: Tensor, place: Tensor) -> Tensor:
    """Return the states (B, K, W) at places (B, K) of each row."""
    return words.gather(1, place.unsqueeze(-1).expand(-1, -1, words.shape[-1]))


def list_states(words: Tensor) -> tuple[Tensor, Tensor]:
    """Return all states of words (B, S, W) without removing duplicates, and their places (B, S).

    On a GPU, removing duplicates would make the host wait for the number of distinct states. States
    that all rows share (an expanded view) are listed once.
    """
    rows, states = words.shape[:2]
    if words.stride(0) == 0:
        place = torch.arange(states, device=words.device)
        return words[0], place.expand(rows, -1)
    return words.flatten(0, 1), torch.arange(rows * states, device=words.device).view(rows, states)
