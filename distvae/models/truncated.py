"""The posterior of a binary model, truncated to a set of states."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from distvae.models.population import States
from distvae.numerics.noise import Noise

Decode = Callable[[Tensor], Tensor]


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

    @property
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
        flat = value.reshape(len(value), -1)
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
