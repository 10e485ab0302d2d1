"""The evolutionary operators: selection of parents, crossover, and mutation (Guiraud et al. 2018,
and the supplement of the TVAE paper).

Each operator is a pure function of states, their log-joints, and random draws keyed by row. States
are words (B, S, W).
"""

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distvae.config import Evolution
from distvae.models.population import below, flip, holds, pack, take, unpack, words_of
from distvae.numerics.noise import Noise, Stream, unit

Selection = Literal["fitness", "fitness_batch", "released", "uniform", "best"]
RELEASE_BATCH = 32
POSITIVE_MASK = (1 << 62) - 1
MOST_ACTIVE = 8  # under Bernoulli(1 / H), one state in a million has more active bits


def select(
    words: Tensor, log_joint: Tensor, count: int, selection: Selection, noise: Noise, stage: int
) -> Tensor:
    """Return parents (B, Np, W).

    `fitness` draws in proportion to the log-joint above the row's lowest; `uniform` draws evenly.
    Both draw without replacement. `best` takes the best states. `fitness_batch` normalises fitness
    over a minibatch of 32: each parent, drawn with replacement, is the best state except one time
    in 32. `released` selects like the released code: instead of the best state it takes the first
    kept state, or in later generations the last child. Kept states are ranked by their log-joints
    in the last search, under older parameters; children are in the order of their creation.
    """
    if selection == "fitness_batch":
        return take(words, _nearly_best(log_joint, count, noise, stage))
    if selection == "released":
        return take(words, _at_an_end(log_joint, count, noise, stage))
    if selection == "best":
        return take(words, log_joint.topk(count, dim=1).indices)
    chance = -noise.uniform("parent", stage + 1, words.shape[1])[:, stage].log()
    weight = _fitness(log_joint) if selection == "fitness" else torch.ones_like(log_joint)
    # Exponential races draw in proportion to weight, without replacement.
    return take(words, (weight / chance).topk(count, dim=1).indices)


def _fitness(log_joint: Tensor) -> Tensor:
    """Return log-joints shifted to be non-negative."""
    fitness = log_joint - log_joint.amin(1, keepdim=True)
    return fitness + 1e-6 * (1 + fitness.amax(1, keepdim=True))


def _nearly_best(log_joint: Tensor, count: int, noise: Noise, stage: int) -> Tensor:
    u = noise.uniform("parent", stage + 1, 2 * count)[:, stage]
    ladder = _fitness(log_joint).cumsum(1)
    drawn = torch.searchsorted(ladder, u[:, :count] * ladder[:, -1:]).clamp_max(
        log_joint.shape[1] - 1
    )
    return drawn.where(u[:, count:] < 1 / RELEASE_BATCH, log_joint.argmax(1, keepdim=True))


def _at_an_end(log_joint: Tensor, count: int, noise: Noise, stage: int) -> Tensor:
    """Return the place of the first kept state or the last child; one time in 32, any place."""
    u = noise.uniform("parent", stage + 1, 2 * count)[:, stage]
    states = log_joint.shape[1]
    any_one = (u[:, :count] * states).long().clamp_max(states - 1)
    return any_one.masked_fill(u[:, count:] >= 1 / RELEASE_BATCH, states - 1 if stage else 0)


def distinct(words: Tensor, among: int) -> Tensor:
    """Return K different places (..., K) below `among` from K random words (Floyd's algorithm).

    All sets of K places are equally likely.
    """
    count = words.shape[-1]
    last = torch.arange(among - count, among, device=words.device)
    chosen = _place(words, last + 1)
    for i in range(1, count):
        taken = (chosen[..., :i] == chosen[..., i : i + 1]).any(-1)
        chosen[..., i].masked_fill_(taken, among - count + i)
    return chosen


def _place(word: Tensor, among: Tensor | int) -> Tensor:
    """Return a place below `among` from a random word."""
    return _positive(word).remainder(among)


def _positive(word: Tensor) -> Tensor:
    return word.bitwise_right_shift(1) & POSITIVE_MASK


def flipped(parents: Tensor, children: int, latent: int, noise: Noise, stage: int) -> Tensor:
    """Return children (B, Np * Nc, W) with one flipped bit, which differs between siblings."""
    rows, count, words = parents.shape
    bit = distinct(noise.bits("child", stage + 1, count, children)[:, stage], latent)
    return flip(parents[:, :, None].expand(-1, -1, children, -1), bit).reshape(
        rows, count * children, words
    )


def bernoulli(count: int, latent: int, noise: Noise, stream: Stream) -> Tensor:
    """Return states (B, K, W) of independent bits, each active with probability 1 / H.

    The number of active bits is drawn first, and then the places of the active bits.
    """
    words, active, states = _counts_of_bits(count, latent, noise, stream)
    for k in range(words.shape[-1] - 1):  # Floyd's algorithm, on states with more than k bits
        more = active > k
        state, last = states[more], latent - active[more] + k
        place = _place(words[..., k + 1][more], last + 1)
        states[more] = flip(state, place.where(~holds(state, place), last))
    return states


def bernoulli_masked(count: int, latent: int, noise: Noise, stream: Stream) -> Tensor:
    """Return the same states as `bernoulli`, by operations with fixed shapes."""
    words, active, states = _counts_of_bits(count, latent, noise, stream)
    inactive, numbers = latent - active, _positive(words)
    for k in range(words.shape[-1] - 1):
        last = (inactive + k).clamp_max(latent - 1)  # clamps only states with k bits or fewer
        place = numbers[..., k + 1].remainder(last + 1)
        flipped = flip(states, place.where(~holds(states, place), last))
        states = flipped.where((active > k).unsqueeze(-1), states)
    return states


def _counts_of_bits(
    count: int, latent: int, noise: Noise, stream: Stream
) -> tuple[Tensor, Tensor, Tensor]:
    """Return random words (B, K, 9), numbers of active bits (B, K), and empty states (B, K, W)."""
    words = noise.bits(stream, count, min(latent, MOST_ACTIVE) + 1)
    ladder = _ladder(latent, torch.get_default_dtype(), words.device)
    active = torch.searchsorted(ladder, unit(words[..., 0]))
    shape = (*words.shape[:2], words_of(latent))
    return words, active, torch.zeros(shape, dtype=torch.int64, device=words.device)


@lru_cache
def _ladder(latent: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the cumulative distribution of the number of active bits under Bernoulli(1 / H)."""
    rate = 1 / latent
    chance = [
        math.comb(latent, k) * rate**k * (1 - rate) ** (latent - k)
        for k in range(min(latent, MOST_ACTIVE))
    ]
    return torch.tensor(chance, dtype=dtype, device=device).cumsum(0)


class SparseFlips(NamedTuple):
    """Settings of the sparse mutation."""

    active: float | Tensor
    """The number of active bits that mutations favour."""
    rate: float
    """The share of bits that a mutation flips, on average."""


def sparsely_flipped(
    parents: Tensor, children: int, latent: int, sparse: SparseFlips, noise: Noise, stage: int
) -> Tensor:
    """Return children (B, Np * Nc, W) with random flips that favour a number of active bits."""
    states = unpack(parents, latent)
    ones = states.sum(-1, keepdim=True).float()
    zeros, flips, surplus = latent - ones, latent * sparse.rate, ones - sparse.active
    off = ((flips + surplus) / 2 / ones.clamp_min(1)).clamp(0, 1)  # probability to flip a one
    on = ((flips - surplus) / 2 / zeros.clamp_min(1)).clamp(0, 1)
    chance = torch.where(states, off, on)[:, :, None]
    u = noise.uniform("child", stage + 1, parents.shape[1], children, latent)[:, stage]
    return pack((states[:, :, None] ^ (u < chance)).flatten(1, 2))


def crossed(parents: Tensor, latent: int, noise: Noise, stage: int) -> Tensor:
    """Cross every pair of parents at one point; return both children, (B, Np * (Np - 1), W)."""
    first, second = torch.triu_indices(parents.shape[1], parents.shape[1], 1, device=parents.device)
    cut = noise.bits("choice", stage + 1, len(first))[:, stage].remainder(latent - 1) + 1
    mask = below(cut, words_of(latent))
    one, other = parents[:, first], parents[:, second]
    return torch.cat([(one & mask) | (other & ~mask), (other & mask) | (one & ~mask)], dim=1)


def breed(
    parents: Tensor, config: Evolution, latent: int, pi: Tensor, noise: Noise, stage: int
) -> Tensor:
    """Return the children (B, C, W) of parents (B, Np, W), by crossover and mutation."""
    siblings = config.children
    if config.crossover == "one_point":
        parents, siblings = crossed(parents, latent, noise, stage), 1
    if config.mutation == "flip":
        return flipped(parents, siblings, latent, noise, stage)
    sparse = SparseFlips(pi.sum(), config.rate)
    return sparsely_flipped(parents, siblings, latent, sparse, noise, stage)
