"""The importance-weighted bound (Burda, Grosse and Salakhutdinov, ICLR 2016).

    L_k = E log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x),    z_1 .. z_k ~ q(z | x)

L_1 is the reported bound. L_k never decreases with k, and approaches log p(x). Spike-and-slab
posteriors are sampled with hard gates and weighted by their mixture of an atom at zero and a
density elsewhere. SDM-VAE's prior variances and the prior of pseudo-inputs depend on the row, so
L_k then bounds log p(x) given the prior of the row.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

from distvae.data.dataset import Rows
from distvae.interface import Batch, LatentModel, Posterior
from distvae.numerics.noise import EVALUATION, Noise
from distvae.tasks.measures.subject import Subject
from distvae.train.run import VALUES, Run

Q = TypeVar("Q", bound=Posterior)


def iw_bound(subject: Subject) -> dict[str, float]:
    """Return the mean of the bound over the rows of a split, and its standard deviation."""
    found = by_row(subject.run, subject.rows, subject.run.config.eval.importance)
    return {"iw_bound": float(found.mean()), "iw_bound_row_std": float(found.std())}


@torch.inference_mode()
def by_row(run: Run, rows: Rows, draws: int) -> Tensor:
    """Return the bound (N,) of each row in nats, computed in blocks that fit in memory."""
    together, found = max(1, VALUES // (draws * run.dims)), []
    for start in range(0, len(rows), together):
        x = torch.tensor(rows[start : start + together])
        row = torch.arange(start, start + len(x))
        noise = Noise(run.config.train.seed, EVALUATION, row)
        found.append(weighted(run.model, Batch.of(x, row), run.posterior(x, row), draws, noise))
    return torch.cat(found)


def weighted(model: LatentModel[Q], batch: Batch, q: Q, draws: int, noise: Noise) -> Tensor:
    """Return (B,) the logarithm of the mean of p(x, z) / q(z | x) over `draws` draws."""
    z, _ = q.points(draws, noise)
    log_weight = model.log_likelihood(batch, z) + q.log_ratio(z)
    return log_weight.double().logsumexp(1) - math.log(draws)
