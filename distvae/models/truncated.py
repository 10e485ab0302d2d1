"""The posterior of a binary model, truncated to a set of states."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from distvae.interface import Batch
from distvae.models.population import States
from distvae.numerics.noise import Noise

LEFT_OUT, NEAR, SAMPLED = 0, 1, 2
"""What becomes of a state in training: it is left out because it was improbable when its row was
searched; it takes part; or it takes part although it was improbable, because its row is sampled to
measure how much is left out of others.
"""

Decode = Callable[[Tensor], Tensor]


class KeptStates(NamedTuple):
    """The states that an E-step keeps for the rows of a batch."""

    words: Tensor
    """(B, S, W)"""
    part: Tensor | None = None
    """(B, S) whether each takes part in training; None if all do."""
    empty: Tensor | None = None
    """(B, S) the log-probability of no active bits under the prior of the present epoch, or minus
    infinity for states left out. Only a search on a device makes this and the next, so that no step
    has to.
    """
    sampled: Tensor | None = None
    """(B, S) one for states that take part because their row is sampled, zero for others."""

    def of_rows(self, rows: slice | Tensor) -> "KeptStates":
        """Return the states of some of the rows."""
        others = (None if field is None else field[rows] for field in self[1:])
        return KeptStates(self.words[rows], *others)

    def cloned(self) -> "KeptStates":
        """Return the same in memory of their own."""
        others = (None if field is None else field.clone() for field in self[1:])
        return KeptStates(self.words.clone(), *others)


def with_numbers(words: Tensor, part: Tensor, none: Tensor) -> KeptStates:
    """Return states of which numbers say whether they take part, given log p of no active bits."""
    empty = none.expand(part.shape).masked_fill(part == LEFT_OUT, -torch.inf)
    return KeptStates(words, part, empty, (part == SAMPLED).to(none.dtype))


def without_left_out(words: Tensor, part: Tensor) -> Tensor:
    """Return states (B, S, W) with a state that takes part in place of those that are left out."""
    near = (part == NEAR).byte().argmax(1)
    taking_part = words[torch.arange(len(words), device=words.device), near]
    return words.where((part != LEFT_OUT).unsqueeze(-1), taking_part.unsqueeze(1))


@runtime_checkable
class KeepsStates(Protocol):
    """An E-step whose posteriors are truncated to states that it keeps for each row."""

    def kept_states(self, batch: Batch) -> KeptStates:
        """Return the states of these rows, and which of them take part in training."""


@runtime_checkable
class ShowsStates(KeepsStates, Protocol):
    """Such an E-step that can be told what to show."""

    def show(self, states: KeptStates | None) -> None:
        """Make `kept_states` return these states for any rows; None ends that."""


@dataclass(frozen=True)
class Truncated:
    """q(z) proportional to p(x, z) on the kept states, zero elsewhere; no gradient passes it.

    Rows share states. Each distinct state is in a table once, and rows refer to it by its place. It
    is therefore decoded once, and its gradient is gathered once.
    """

    table: States
    """(U, H) the distinct states, and a few more that no row refers to."""
    place: Tensor
    """(B, S) the place in the table of each kept state of each row."""
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
    """(B, S) whether each state takes part in training; None if all do."""

    @property
    def sampled_weight(self) -> Tensor:
        """The weight of all states that take part because their row is sampled."""
        if self.part is None:
            return self.weight.new_zeros(())
        return self.weight.where(self.part == SAMPLED, 0).sum()

    @property
    def states(self) -> Tensor:
        """(B, S, H), distinct in each row."""
        return self.table.dense(self.log_prior.dtype)[self.place]

    @cached_property
    def log_joint(self) -> Tensor:
        """(B, S) log p(x, z)."""
        return self.log_likelihood + self.log_prior

    @cached_property
    def weight(self) -> Tensor:
        """(B, S) q."""
        return self.log_joint.softmax(1)

    @cached_property
    def code(self) -> Tensor:
        """(B, H) E_q[z]."""
        return self.table.mean(self.place, self.weight)

    @property
    def best(self) -> Tensor:
        """(B, H) the most probable of the kept states."""
        return self.states[torch.arange(len(self.place)), self.log_joint.argmax(1)]

    def expect(self, f: Decode) -> Tensor:
        """Return E_q[f(z)], (B, ...), with f computed once for each distinct state.

        If f is the function that decoded the states, its values are known.
        """
        if f == self.decode:
            value = self.mean(self.output)
        else:
            value = f(self.table.dense(self.weight.dtype)[:, None])[:, 0]
        flat = value.reshape(len(value), math.prod(value.shape[1:]))  # -1 would need a row
        mean = functional.embedding_bag(
            self.place, flat, per_sample_weights=self.weight, mode="sum"
        )
        return mean.reshape(len(mean), *value.shape[1:])

    def points(self, draws: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """Return all kept states with q, or draws from them with equal weights."""
        if draws == 0 or noise is None:
            return self.states, self.weight
        ladder = self.weight.cumsum(1)
        drawn = torch.searchsorted(ladder, noise.uniform("state", draws) * ladder[:, -1:])
        place = self.place.gather(1, drawn.clamp_max(self.place.shape[1] - 1))
        return self.table.dense(ladder.dtype)[place], ladder.new_full(place.shape, 1 / draws)

    def log_ratio(self, z: Tensor) -> Tensor:
        """Return log p(z) - log q(z), (B, S), at kept states; minus infinity at any other."""
        same = (z[:, :, None] == self.states[:, None]).all(-1)
        ratio = self.log_prior - self.log_joint.log_softmax(1)
        return ratio[:, None].expand_as(same).masked_fill(~same, -torch.inf).amax(-1)
