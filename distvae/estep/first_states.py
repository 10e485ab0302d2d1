"""The initial states of rows."""

import torch
from torch import Tensor

from distvae.estep.operators import bernoulli
from distvae.models.population import keep_best, repeated, take
from distvae.numerics.noise import Noise

FIRST = -3  # the epoch number of the draws of initial states


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
