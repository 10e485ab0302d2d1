"""The search of a block of rows on a GPU, with fixed shapes and without synchronisation.

It makes the same draws and keeps the same states as the search on the CPU. It decodes every state
of every row, and finds equal states of a row by sorting their hashes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distvae.config import Evolution, RandomSearch, Truncation
from distvae.engines.pair_densities import has_pair_density
from distvae.engines.state_scores import Scores
from distvae.estep.operators import (
    MOST_ACTIVE,
    bernoulli_masked,
    breed,
    distinct,
    select,
)
from distvae.estep.store import HeldPopulations, LocalStore
from distvae.estep.survivors import parts_in_training
from distvae.interface import Batch, Sums
from distvae.models.population import keys, one_bit, take, words_of
from distvae.models.truncated import KeptStates, with_numbers
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise, Stream, draw_ahead

COUNTED = 256
"""The rows of each block in which distinct states are counted, for a metric."""

Score = Callable[[Tensor], Tensor]
"""Log-joints (B, C) of the states of words (B, C, W)."""


class ScoredStates(NamedTuple):
    """States of rows, and their log-joints."""

    words: Tensor
    """(B, C, W)"""
    value: Tensor
    """(B, C)"""


class Propose(Protocol):
    """The part of a search that proposes new states."""

    def draws(self) -> dict[Stream, int]:
        """Return the number of random words needed for each row, by stream."""

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return new states, given the kept states and the prior probabilities of bits."""


class Found(NamedTuple):
    """The result of searching a block."""

    words: Tensor
    """(B, S, W) the states to keep, in the order of the store."""
    kept: KeptStates
    """The same states sorted by log-joint, best first, with their parts in training."""
    sums: Sums
    """Sums for the epoch's record."""


class Best(NamedTuple):
    """The best distinct states of each row, sorted best first."""

    words: Tensor
    """(B, S, W)"""
    place: Tensor
    """(B, S) the place of each state among the candidates."""
    value: Tensor
    """(B, S) the log-joint of each state."""
    key: Tensor
    """(B, S) a hash of each state."""


def best_first(states: Tensor, value: Tensor, count: int) -> Best:
    """Return the `count` distinct states of largest value. Of equal states, keep the earliest.

    Sorting by hash makes equal states neighbours.
    """
    key, order = keys(states).sort(dim=1, stable=True)
    value = value.gather(1, order)
    value[:, 1:].masked_fill_(key[:, 1:] == key[:, :-1], -torch.inf)
    found = value.topk(count, dim=1)
    place = order.gather(1, found.indices)
    return Best(take(states, place), place, found.values, key.gather(1, found.indices))


def count_distinct(keys: Tensor) -> Tensor:
    """Return the number of distinct keys."""
    ordered = keys.flatten().sort().values
    repeated = (ordered[1:] == ordered[:-1]).sum(dtype=torch.float64)
    return ordered.numel() - repeated


class DeviceSearch:
    """A search with fixed shapes."""

    def __init__(self, config: Truncation, latent: int, ranked: bool) -> None:
        self.config, self.ranked = config, ranked
        self.propose = proposer(config, latent)
        self.scores: Scores | None = None
        self.counts: dict[int, Tensor] = {}

    def suits(self, model: TVAE, batch: Batch) -> bool:
        """Return whether this search applies: on a GPU, for a known proposer and likelihood."""
        if batch.x.device.type == "cpu" or self.propose is None:
            return False
        return type(model).score is TVAE.score and has_pair_density(model.likelihood)

    @torch.no_grad()
    def __call__(self, model: TVAE, batch: Batch, words: Tensor, noise: Noise) -> Found:
        """Return the best distinct states among the kept and the new states."""
        if self.scores is None or self.scores.model is not model:
            self.scores = Scores(model)
        assert self.propose is not None
        has_horizon = model.config.horizon is not None
        sample: dict[Stream, int] = {"sample": int(has_horizon)}
        noise = draw_ahead(noise, self.propose.draws() | sample)
        scorer = self.scores.present()
        score = partial(scorer.score, batch)
        old = ScoredStates(words, score(words))
        new = self.propose(old, score, noise, model.pi)
        states, value = (torch.cat(both, 1) for both in zip(old, new, strict=True))
        best = best_first(states, value, words.shape[1])
        place = best.place if self.ranked else best.place.sort(1).values
        better = best.words if self.ranked else take(states, place)
        kept, sums = KeptStates(best.words), self._sums(best, place)
        if has_horizon:
            gap = best.value[:, :1] - best.value
            part, sums["sampled_rows"] = parts_in_training(gap, model.horizon, noise)
            kept = with_numbers(best.words, part, scorer.prior.none)
        return Found(better, kept, sums)

    def _sums(self, best: Best, place: Tensor) -> Sums:
        """Return the number of replaced states, and of distinct states in a sample of rows."""
        sample = best.key[:COUNTED]
        count = sample.numel()
        if count not in self.counts:
            self.counts[count] = best.value.new_full((), count, dtype=torch.float64)
        return {
            "substitutions": (place >= place.shape[1]).sum(dtype=torch.float64),
            "distinct": count_distinct(sample),
            "looked_at": self.counts[count],
        }


def rows_beside(store: HeldPopulations, batch: Batch, noise: Noise) -> Tensor:
    """Return the row numbers on the device of the store's words."""
    if isinstance(store, LocalStore) and store.words.device == noise.row.device:
        return noise.row
    return batch.row


def proposer(config: Truncation, latent: int) -> Propose | None:
    """Return the proposer of a search configuration, or None if the search is not known here."""
    if type(config) is Evolution:
        return Offspring(config, latent)
    if type(config) is RandomSearch:
        return RandomDraws(config, latent)
    return None


class RandomDraws:
    """Proposes random states with one active bit on average."""

    def __init__(self, config: RandomSearch, latent: int) -> None:
        self.config, self.latent = config, latent

    def draws(self) -> dict[Stream, int]:
        """Request one word for the number of active bits of each state, and one word per bit."""
        return {"child": self.config.draws * (min(self.latent, MOST_ACTIVE) + 1)}

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return random states, independent of the kept states."""
        words = bernoulli_masked(self.config.draws, self.latent, noise, "child")
        return ScoredStates(words, score(words))


class Offspring:
    """Proposes the children of all generations. Each generation has parents from the one before."""

    def __init__(self, config: Evolution, latent: int) -> None:
        self.config, self.latent = config, latent
        self.flips_parents = config.crossover == "none" and config.mutation == "flip"

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return the children of parents among the kept states, and of later generations."""
        masks = self._masks(noise) if self.flips_parents else None
        found = [kept]
        for stage in range(self.config.generations):
            parents = select(*found[-1], self.config.parents, self.config.selection, noise, stage)
            if masks is None:
                children = breed(parents, self.config, self.latent, pi, noise, stage)
            else:
                children = (parents.unsqueeze(2) ^ masks[:, stage]).flatten(1, 2)
            found.append(ScoredStates(children, score(children)))
        words, values = zip(*found[1:], strict=True)
        if len(words) == 1:
            return found[1]
        return ScoredStates(torch.cat(words, 1), torch.cat(values, 1))

    def draws(self) -> dict[Stream, int]:
        """Request the random words that all generations need, by stream."""
        config = self.config
        of_one = config.new_states // config.generations
        among = max(config.states, config.generations * of_one)
        parent = {
            "fitness": among,
            "uniform": among,
            "fitness_batch": 2 * config.parents * config.generations,
            "released": 2 * config.parents * config.generations,
            "best": 0,
        }
        counts: dict[Stream, int] = {"parent": parent[config.selection]}
        if self.flips_parents:
            counts["child"] = config.new_states
        return counts

    def _masks(self, noise: Noise) -> Tensor:
        """Return the bit to flip in each child as masks (B, G, Np, Nc, W); siblings differ.

        The masks do not depend on the parents, so one call makes the masks of all generations.
        """
        config = self.config
        words = noise.bits("child", config.generations, config.parents, config.children)
        return one_bit(distinct(words, self.latent), words_of(self.latent))
