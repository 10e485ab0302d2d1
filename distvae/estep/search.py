"""The parts of a search over binary states: first states, selection of parents, crossover,
mutation, and survivors (Guiraud et al. 2018, and the supplement of the TVAE paper).

Each operator is a pure function of states, their log-joints, and random draws keyed by row. States
are words (B, S, W). The operators have fixed shapes, so that a GPU need not wait for the host. On
the CPU, `kernels` has the same operators for the default search.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from distvae.config import Evolution
from distvae.models.population import (
    NEAR,
    SAMPLED,
    below,
    flip,
    holds,
    keep_best,
    pack,
    repeated,
    take,
    unpack,
    words_of,
)
from distvae.numerics.noise import Noise, Stream, unit

Selection = Literal["fitness", "fitness_batch", "released", "uniform", "best"]
RELEASE_BATCH = 32
POSITIVE_MASK = (1 << 62) - 1
MOST_ACTIVE = 8  # under Bernoulli(1 / H), one state in a million has more active bits
T = TypeVar("T")
SAMPLE = 1 / 64  # share of rows that are sampled: all states of a sampled row take part
MIN_ROWS = 128
"""The fewest rows for which another thread pays."""
FIRST = -3  # the epoch number of the draws of initial states
Scored = tuple[Tensor, Tensor]
"""States (B, S, W) and their log-joints (B, S)."""


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
    chosen = _positive(words).remainder(last + 1)
    for i in range(1, count):
        taken = (chosen[..., :i] == chosen[..., i : i + 1]).any(-1)
        chosen[..., i].masked_fill_(taken, among - count + i)
    return chosen


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

    The number of active bits is drawn first, and then the places of the active bits (by Floyd's
    algorithm).
    """
    words = noise.bits(stream, count, min(latent, MOST_ACTIVE) + 1)
    ladder = _ladder(latent, torch.get_default_dtype(), words.device)
    active = torch.searchsorted(ladder, unit(words[..., 0]))
    states = words.new_zeros(*words.shape[:2], words_of(latent))
    inactive, numbers = latent - active, _positive(words)
    for k in range(words.shape[-1] - 1):
        last = (inactive + k).clamp_max(latent - 1)  # clamps only states with k bits or fewer
        place = numbers[..., k + 1].remainder(last + 1)
        flipped = flip(states, place.where(~holds(states, place), last))
        states = flipped.where((active > k).unsqueeze(-1), states)
    return states


@lru_cache
def _ladder(latent: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the cumulative distribution of the number of active bits under Bernoulli(1 / H)."""
    rate = 1 / latent
    chance = [
        math.comb(latent, k) * rate**k * (1 - rate) ** (latent - k)
        for k in range(min(latent, MOST_ACTIVE))
    ]
    return torch.tensor(chance, dtype=dtype, device=device).cumsum(0)


def sparsely_flipped(
    parents: Tensor, config: Evolution, siblings: int, pi: Tensor, noise: Noise, stage: int
) -> Tensor:
    """Return children (B, Np * Nc, W) with random flips: `config.rate` of all bits on average. They
    favour the number of active bits that the prior `pi` expects.
    """
    latent = len(pi)
    states = unpack(parents, latent)
    ones = states.sum(-1, keepdim=True).float()
    zeros, flips, surplus = latent - ones, latent * config.rate, ones - pi.sum()
    off = ((flips + surplus) / 2 / ones.clamp_min(1)).clamp(0, 1)  # probability to flip a one
    on = ((flips - surplus) / 2 / zeros.clamp_min(1)).clamp(0, 1)
    chance = torch.where(states, off, on)[:, :, None]
    u = noise.uniform("child", stage + 1, parents.shape[1], siblings, latent)[:, stage]
    return pack((states[:, :, None] ^ (u < chance)).flatten(1, 2))


def crossed(parents: Tensor, latent: int, noise: Noise, stage: int) -> Tensor:
    """Cross every pair of parents at one point; return both children, (B, Np * (Np - 1), W)."""
    first, second = torch.triu_indices(parents.shape[1], parents.shape[1], 1, device=parents.device)
    cut = noise.bits("choice", stage + 1, len(first))[:, stage].remainder(latent - 1) + 1
    mask = below(cut, words_of(latent))
    one, other = parents[:, first], parents[:, second]
    return torch.cat([(one & mask) | (other & ~mask), (other & mask) | (one & ~mask)], dim=1)


def breed(parents: Tensor, config: Evolution, pi: Tensor, noise: Noise, stage: int) -> Tensor:
    """Return the children (B, C, W) of parents (B, Np, W), by crossover and mutation."""
    latent, siblings = len(pi), config.children
    if config.crossover == "one_point":
        parents, siblings = crossed(parents, latent, noise, stage), 1
    if config.mutation == "flip":
        return flipped(parents, siblings, latent, noise, stage)
    return sparsely_flipped(parents, config, siblings, pi, noise, stage)


def common_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """Return distinct states (B, S, W) shared by all rows, drawn from Bernoulli(1 / H)."""
    return first_states(count, latent, seed, torch.zeros_like(rows[:1])).expand(len(rows), -1, -1)


def first_states(count: int, latent: int, seed: int, rows: Tensor) -> Tensor:
    """Return distinct states (B, S, W) for each row, drawn from Bernoulli(1 / H).

    If a row has too few distinct states, mutated copies of earlier states are added until every row
    has enough.
    """
    pool = bernoulli(3 * count, latent, Noise(seed, FIRST, rows), "state")
    for draw in range(1, 1000):
        if int((~repeated(pool)).sum(1).min()) >= count:
            break
        noise = Noise(seed, FIRST - 1_000_000 * draw, rows)
        parent = noise.uniform("parent", count).mul(pool.shape[1]).long()
        pool = torch.cat([pool, take(pool, parent) ^ bernoulli(count, latent, noise, "state")], 1)
        pool = _earliest(pool, min(pool.shape[1], 2 * count))
    return _earliest(pool, count)


def _earliest(pool: Tensor, count: int) -> Tensor:
    """Return the first distinct states of each row, (B, count, W), in the order of the pool.

    Later draws therefore do not change a row that already has enough states.
    """
    age = torch.arange(pool.shape[1], dtype=torch.float32, device=pool.device).expand(len(pool), -1)
    return keep_best(pool, -age, count)[0]


class Improved(NamedTuple):
    """The states of some rows after a search."""

    words: Tensor
    """(B, S, W)"""
    gap: Tensor
    """(B, S) the row's best log-joint minus each state's log-joint."""
    replaced: Tensor
    """The number of new states."""


def best_states(kept: Scored, new: Scored, ranked: bool = False) -> Improved:
    """Return the best distinct states among the kept and the new states; their number stays.

    With `ranked` the states are sorted, best first; otherwise they stay in order. The result may
    overwrite the memory of the kept states.
    """
    if kept[0].device.type == "cpu" and not ranked:
        from distvae.estep import kernels

        shared = not kept[0].is_contiguous()  # one set of states, expanded to all rows
        better = torch.empty_like(kept[0]) if shared else kept[0]
        gap = torch.empty_like(kept[1])
        replaced = kernels.survivors(*(t.numpy() for t in (*kept, *new, better, gap)))
        return Improved(better, gap, torch.tensor(replaced))
    count = kept[0].shape[1]
    words, value = (torch.cat(both, 1) for both in zip(kept, new, strict=True))
    better, place = keep_best(words, value, count, ranked)
    value = value.gather(1, place)
    gap = value.amax(1, keepdim=True) - value
    return Improved(better, gap, (place >= count).sum())


def parts_in_training(gap: Tensor, horizon: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return the part (B, S) of each state in training, and the number of sampled rows.

    A state takes part if its gap is at most the horizon, or if its row is sampled.
    """
    sampled = noise.uniform("sample", 1) < SAMPLE
    improbable = sampled.byte().mul_(SAMPLED)  # LEFT_OUT is zero
    return improbable.where(gap > horizon, NEAR), sampled.sum(dtype=torch.float64)


def in_parts(rows: int, compute: Callable[[slice], T]) -> list[T]:
    """Return the results of `compute` on consecutive slices of the rows, one thread per slice.

    Torch parallelises one operator at a time. These threads run whole computations in parallel,
    including the loops between operators. That pays if each slice takes milliseconds.
    """
    threads = torch.get_num_threads()
    count = max(1, min(threads, rows // MIN_ROWS))
    parts = [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]
    if count == 1:
        return [compute(parts[0])]
    pool = _pool(threads)
    torch.set_num_threads(1)  # set here too: the BLAS library has one setting for all threads
    try:
        return list(pool.map(compute, parts))
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "rows", torch.set_num_threads, (1,))
