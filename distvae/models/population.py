"""Binary states, 64 to a word: pure functions on tensors of shape (..., W), W = ceil(H / 64).

A state's key is a 64-bit hash of its words. Equal states have equal keys; that two different ones of the hundred
thousand of a block share one has a probability below 1e-9, and would cost a candidate, nothing else.
"""

import torch
from torch import Tensor

from distvae.noise import mix

BITS = 64
_PLACES = torch.ones(BITS, dtype=torch.int64) << torch.arange(BITS)


def words_of(latent: int) -> int:
    """How many words a state of so many bits takes."""
    return -(-latent // BITS)


def pack(states: Tensor) -> Tensor:
    """(..., H) zeros and ones -> (..., W) words."""
    padding = words_of(states.shape[-1]) * BITS - states.shape[-1]
    padded = torch.nn.functional.pad(states.long(), (0, padding))
    words: Tensor = (padded.unflatten(-1, (-1, BITS)) * _PLACES.to(states.device)).sum(-1)
    return words


def unpack(words: Tensor, latent: int) -> Tensor:
    """(..., W) words -> (..., H) booleans."""
    bits = words.unsqueeze(-1).bitwise_and(_PLACES.to(words.device)) != 0
    return bits.flatten(-2)[..., :latent]


def flip(words: Tensor, bit: Tensor) -> Tensor:
    """The states with one bit turned over, its place given for each."""
    place = torch.arange(words.shape[-1], device=words.device)
    mask = _PLACES.to(words.device)[bit.remainder(BITS)].unsqueeze(-1)
    return words ^ mask.where(place == bit.div(BITS, rounding_mode="floor").unsqueeze(-1), 0)


def below(cut: Tensor, words: int) -> Tensor:
    """(..., W) masks of the bits before each cut."""
    first = torch.arange(words, device=cut.device) * BITS
    inside = (cut.unsqueeze(-1) - first).clamp(0, BITS)
    partial = (_PLACES.to(cut.device)[inside.clamp_max(BITS - 1)]) - 1
    return partial.where(inside < BITS, -1)


def keys(words: Tensor) -> Tensor:
    """(...) one hash for each state."""
    key = torch.zeros(words.shape[:-1], dtype=torch.int64, device=words.device)
    for word in words.unbind(-1):
        key = mix(key + word)
    return key


def repeated(key: Tensor) -> Tensor:
    """(B, C) whether an equal key stands earlier in the row."""
    ordered, place = key.sort(dim=1, stable=True)
    again = torch.zeros_like(key, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter_(1, place, again)


def keep_best(words: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` distinct states of largest value in each row of (B, C, W), with their places (B, count).

    Of equal states the earliest stands for all.
    """
    place = value.masked_fill(repeated(keys(words)), -torch.inf).topk(count, dim=1, sorted=False).indices
    return take(words, place), place


def take(words: Tensor, place: Tensor) -> Tensor:
    """(B, K, W) the states at places (B, K) of each row."""
    return words.gather(1, place.unsqueeze(-1).expand(-1, -1, words.shape[-1]))


def tabulate(words: Tensor) -> tuple[Tensor, Tensor]:
    """(U, W) the distinct states of (B, S, W), and (B, S) where in that table each is."""
    key, place = keys(words).unique(return_inverse=True)
    distinct = words.new_zeros(len(key), words.shape[-1])
    distinct[place.flatten()] = words.flatten(0, 1)
    return distinct, place
