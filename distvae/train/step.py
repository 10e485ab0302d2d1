"""One step: posterior, objective, gradient, update; for any model, on any number of workers."""

from typing import Any

import torch
from torch import Tensor

from distvae.interface import Batch
from distvae.numerics.measures import hoyer
from distvae.numerics.noise import Noise
from distvae.train.adam import Adam

Sums = dict[str, Tensor]


def ascend(model: Any, estep: Any, adam: Adam, batch: Batch, noise: Noise, rows: int) -> Sums:
    """Move the parameters along the gradient of the mean objective over so many rows on all
    workers; return sums.
    """
    adam.forget()
    sums = _follow(model, estep, batch, noise, rows) if len(batch.row) else {}
    adam.step()
    model.project()
    return sums


def _follow(model: Any, estep: Any, batch: Batch, noise: Noise, rows: int) -> Sums:
    """The gradients, and sums that tell of the parameters before the step."""
    q = estep(model, batch)
    objective = model.objective(batch, q, noise)
    objective.backward(torch.full_like(objective, -1 / rows))
    with torch.no_grad():
        statistics: Sums = model.statistics(batch, q, noise)
        return {"objective": objective.detach().sum()} | statistics


@torch.no_grad()
def assess(model: Any, q: Any, batch: Batch, noise: Noise) -> Sums:
    """Sums that say how well rows are explained by their posteriors, and by how sparse a code."""
    sparsity = hoyer(q.code)
    return {
        "objective": model.objective(batch, q, noise).sum(),
        "bound": model.bound(batch, q, noise).sum(),
        "hoyer": sparsity.nansum(),
        "sparse_rows": sparsity.isfinite().sum(),
    } | {name: value for name, value in model.statistics(batch, q, noise).items() if name == "kl"}


def add(total: Sums, sums: Sums) -> None:
    """Accumulate in double precision."""
    for name, value in sums.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value.to(torch.float64, copy=True)
