"""Truncated posteriors of binary models: exact on a set of states, zero elsewhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from distvae.interface import Batch
from distvae.models.population import LEFT_OUT, NEAR, SAMPLED, unpack
from distvae.numerics.noise import Noise

Decode = Callable[[Tensor], Tensor]


class KeptStates(NamedTuple):
    """The states that an E-step keeps for the rows of a batch."""

    words: Tensor
    """(B, S, W)"""
    part: Tensor | None = None
    """(B, S) the part of each state in training; None if all states take part."""
    empty: Tensor | None = None
    """(B, S) log p(0) under the current prior, or minus infinity for left-out states. Only a search
    on a GPU precomputes `empty` and `sampled`, which saves operations in each step.
    """
    sampled: Tensor | None = None
    """(B, S) 1 for states with part `SAMPLED`, 0 for all other states."""

    def of_rows(self, rows: slice | Tensor) -> "KeptStates":
        """Return the states of some of the rows."""
        others = (None if field is None else field[rows] for field in self[1:])
        return KeptStates(self.words[rows], *others)

    def cloned(self) -> "KeptStates":
        """Return a copy with its own memory."""
        others = (None if field is None else field.clone() for field in self[1:])
        return KeptStates(self.words.clone(), *others)


def with_numbers(words: Tensor, part: Tensor, none: Tensor) -> KeptStates:
    """Return kept states with `empty` and `sampled` computed from `part` and `none` = log p(0)."""
    empty = none.expand(part.shape).masked_fill(part == LEFT_OUT, -torch.inf)
    return KeptStates(words, part, empty, (part == SAMPLED).to(none.dtype))


def without_left_out(words: Tensor, part: Tensor) -> Tensor:
    """Replace each left-out state (B, S, W) by a state of the same row that takes part."""
    near = (part == NEAR).byte().argmax(1)
    taking_part = words[torch.arange(len(words), device=words.device), near]
    return words.where((part != LEFT_OUT).unsqueeze(-1), taking_part.unsqueeze(1))


@runtime_checkable
class KeepsStates(Protocol):
    """An E-step with truncated posteriors on states that it keeps for each row."""

    def kept_states(self, batch: Batch) -> KeptStates:
        """Return the kept states of a batch, and their parts in training."""


@runtime_checkable
class ShowsStates(KeepsStates, Protocol):
    """An E-step whose kept states can be overridden."""

    def show(self, states: KeptStates | None) -> None:
        """Make `kept_states` return these states for any batch, until it is called with None."""


@dataclass(frozen=True)
class Truncated:
    """q(z) proportional to p(x, z) on the kept states, zero elsewhere. It carries no gradient.

    Rows share states. On the CPU a table holds each distinct state once, and rows refer to states
    by their places in the table. Each distinct state is therefore decoded once.
    """

    words: Tensor
    """(U, W) the table of states, then padding that no row refers to."""
    latent: int
    """The number of bits of a state."""
    place: Tensor
    """(B, S) the place of each kept state in the table."""
    output: Tensor
    """(U, D) the decoder's output for each state of the table."""
    log_likelihood: Tensor
    """(B, S) log p(x | z)."""
    log_prior: Tensor
    """(B, S) log p(z)."""
    decode: Decode
    """The function that decoded the states."""
    mean: Decode
    """The mean of the likelihood, given the decoder's output."""
    part: Tensor | None = None
    """(B, S) the part of each state in training; None if all states take part."""

    @property
    def sampled_weight(self) -> Tensor:
        """The total weight of states with part `SAMPLED`."""
        if self.part is None:
            return self.weight.new_zeros(())
        return self.weight.where(self.part == SAMPLED, 0).sum()

    @property
    def table(self) -> Tensor:
        """(U, H) the zeros and ones of the table."""
        if self.words.device.type != "cpu":
            return unpack(self.words, self.latent, self.log_prior.dtype)
        from distvae.models import kernels

        table = self.log_prior.new_empty(len(self.words), self.latent)
        kernels.dense(self.words.numpy(), table.numpy())
        return table

    @property
    def states(self) -> Tensor:
        """(B, S, H) the kept states. The states of a row are distinct."""
        return self.table[self.place]

    @cached_property
    def log_joint(self) -> Tensor:
        """(B, S) log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @cached_property
    def weight(self) -> Tensor:
        """(B, S) q(z)."""
        return self.log_joint.softmax(1)

    @cached_property
    def code(self) -> Tensor:
        """(B, H) E_q[z]."""
        if self.words.device.type != "cpu":
            return self._mean(self.table)
        from distvae.models import kernels

        place, words = self.place.numpy(), self.words.numpy()
        return torch.from_numpy(kernels.mean(place, self.weight.numpy(), words, self.latent))

    @property
    def active_code(self) -> Tensor:
        """(B, H) the most probable kept state of each row."""
        return self.states[torch.arange(len(self.place)), self.log_joint.argmax(1)]

    def expect(self, f: Decode) -> Tensor:
        """Return E_q[f(z)], (B, ...), computing f once for each distinct state.

        If f is `decode`, its values are already known.
        """
        if f == self.decode:
            value = self.mean(self.output)
        else:
            value = f(self.table[:, None])[:, 0]
        flat = value.reshape(len(value), math.prod(value.shape[1:]))  # -1 would need a row
        return self._mean(flat).reshape(len(self.place), *value.shape[1:])

    def _mean(self, values: Tensor) -> Tensor:
        """Return the weighted sum (B, ...) of the values (U, ...) of each state of the table."""
        return functional.embedding_bag(
            self.place, values, per_sample_weights=self.weight, mode="sum"
        )

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return all kept states with weights q, or draws from q with equal weights."""
        if draws == 0 or noise is None:
            return self.states, self.weight
        ladder = self.weight.cumsum(1)
        drawn = torch.searchsorted(ladder, noise.uniform("state", draws) * ladder[:, -1:])
        place = self.place.gather(1, drawn.clamp_max(self.place.shape[1] - 1))
        return self.table[place], ladder.new_full(place.shape, 1 / draws)

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S), or minus infinity for states that are not kept."""
        same = (z[:, :, None] == self.states[:, None]).all(-1)
        ratio = self.log_prior - self.log_joint.log_softmax(1)
        return ratio[:, None].expand_as(same).masked_fill(~same, -torch.inf).amax(-1)
