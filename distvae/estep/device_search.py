"""The search of a block of rows on a device: fixed shapes, few operations, nothing read back.

It makes the draws that the search on the CPU makes, and keeps the same states. Every state of every
row is decoded, and equal states of a row are found by sorting hashes of them.
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
from distvae.numerics.drawn import draw_ahead
from distvae.numerics.noise import Noise, Stream

COUNTED = 256
"""Rows of a block whose distinct states are counted."""

Score = Callable[[Tensor], Tensor]
"""Log-joints (B, C) of the states of words (B, C, W)."""


class ScoredStates(NamedTuple):
    """States of rows, and their log-joints."""

    words: Tensor
    """(B, C, W)"""
    value: Tensor
    """(B, C)"""


class Propose(Protocol):
    """The part of a search that makes new states."""

    def draws(self) -> dict[Stream, int]:
        """Return the number of random words that it needs for each row, by stream."""

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return new states, given those that are kept and the probabilities of the bits."""


class Found(NamedTuple):
    """Result of the search of a block."""

    words: Tensor
    """(B, S, W) the states to keep, in the order of the store."""
    kept: KeptStates
    """The same states, the best of each row first, and which take part in training."""
    sums: Sums
    """For the record of the epoch."""


class Best(NamedTuple):
    """The best distinct states of each row, the best first."""

    words: Tensor
    """(B, S, W)"""
    place: Tensor
    """(B, S) where they were."""
    value: Tensor
    """(B, S) their log-joints."""
    key: Tensor
    """(B, S) a hash of each."""


def best_first(states: Tensor, value: Tensor, count: int) -> Best:
    """Return so many distinct states of largest value; of equal ones the earliest.

    Equal states are neighbours in the order of their hashes.
    """
    key, order = keys(states).sort(dim=1, stable=True)
    value = value.gather(1, order)
    value[:, 1:].masked_fill_(key[:, 1:] == key[:, :-1], -torch.inf)
    found = value.topk(count, dim=1)
    place = order.gather(1, found.indices)
    return Best(take(states, place), place, found.values, key.gather(1, found.indices))


def count_distinct(keys: Tensor) -> Tensor:
    """Return how many of the keys (B, S) differ."""
    ordered = keys.flatten().sort().values
    repeated = (ordered[1:] == ordered[:-1]).sum(dtype=torch.float64)
    return ordered.numel() - repeated


class DeviceSearch:
    """A search in fixed shapes."""

    def __init__(self, config: Truncation, latent: int, ranked: bool) -> None:
        self.config, self.ranked = config, ranked
        self.propose = proposer(config, latent)
        self.scores: Scores | None = None
        self.counts: dict[int, Tensor] = {}

    def suits(self, model: TVAE, batch: Batch) -> bool:
        """Return whether a block is searched here: on a device, by a known search and density."""
        if batch.x.device.type == "cpu" or self.propose is None:
            return False
        return type(model).score is TVAE.score and has_pair_density(model.likelihood)

    @torch.no_grad()
    def __call__(self, model: TVAE, batch: Batch, words: Tensor, noise: Noise) -> Found:
        """Return the best distinct states of the kept and the new."""
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
        """Return how many states were replaced, and how many of a sample are distinct."""
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
    """Return the row numbers where the store has its words: on the device, or on the host."""
    if isinstance(store, LocalStore) and store.words.device == noise.row.device:
        return noise.row
    return batch.row


def proposer(config: Truncation, latent: int) -> Propose | None:
    """Return what makes new states, or None for a search that is not known here."""
    if type(config) is Evolution:
        return Offspring(config, latent)
    if type(config) is RandomSearch:
        return RandomDraws(config, latent)
    return None


class RandomDraws:
    """States with one active bit on average."""

    def __init__(self, config: RandomSearch, latent: int) -> None:
        self.config, self.latent = config, latent

    def draws(self) -> dict[Stream, int]:
        """Return a word for the number of active bits of each state, and one for each bit."""
        return {"child": self.config.draws * (min(self.latent, MOST_ACTIVE) + 1)}

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return states that do not depend on those that are kept."""
        words = bernoulli_masked(self.config.draws, self.latent, noise, "child")
        return ScoredStates(words, score(words))


class Offspring:
    """The children of all generations; each generation's parents are from the last."""

    def __init__(self, config: Evolution, latent: int) -> None:
        self.config, self.latent = config, latent
        self.flips_parents = config.crossover == "none" and config.mutation == "flip"

    def __call__(self, kept: ScoredStates, score: Score, noise: Noise, pi: Tensor) -> ScoredStates:
        """Return the children of some parents among the kept states, and theirs."""
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
        """Return the number of words that all generations need, by stream."""
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
        """Return the bits (B, G, Np, Nc, W) that children differ in, another one in each sibling.

        They do not depend on the parents, so those of all generations are made together.
        """
        config = self.config
        words = noise.bits("child", config.generations, config.parents, config.children)
        return one_bit(distinct(words, self.latent), words_of(self.latent))
