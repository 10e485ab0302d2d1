"""One step: posterior, objective, gradient, update; for any model, on any number of workers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from distvae.interface import Batch
from distvae.measures import hoyer
from distvae.noise import Noise

Sums = dict[str, Tensor]


Share = Callable[[Sequence[Tensor]], None]
"""Sums tensors over all workers, in place."""


def ascend(
    model: Any, estep: Any, optimizer: torch.optim.Optimizer, batch: Batch, noise: Noise, rows: int, share: Share
) -> Sums:
    """Move the parameters along the gradient of the mean objective over so many rows on all workers; return sums."""
    optimizer.zero_grad(set_to_none=True)
    if not len(batch.row):
        _move(model, optimizer, share)
        return {}
    q = estep(model, batch)
    objective = model.objective(batch, q, noise).sum()
    (-objective / rows).backward()
    _move(model, optimizer, share)
    with torch.no_grad():
        statistics: Sums = model.statistics(batch, q, noise)
        return {"objective": objective.detach()} | statistics


def _move(model: Any, optimizer: torch.optim.Optimizer, share: Share) -> None:
    """One step along the sum of all workers' gradients; that of a worker without rows is zero.

    Parameters that do not learn yet have none, so that the optimizer begins with them when they do.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    share([parameter.grad for parameter in parameters])
    optimizer.step()
    model.project()


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
        total[name] = total.get(name, torch.zeros((), dtype=torch.float64, device=value.device)) + value.double()
