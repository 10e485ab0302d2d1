"""One step: posterior, objective, gradient, update; for any model, on any number of workers."""

from typing import Any

import torch
from torch import Tensor

from distvae.interface import Batch, Reduce
from distvae.measures import hoyer
from distvae.noise import Noise

Sums = dict[str, Tensor]


def alone(value: Tensor) -> Tensor:
    """The sum over one worker."""
    return value


def ascend(
    model: Any,
    estep: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    noise: Noise,
    rows: int,
    reduce: Reduce = alone,
) -> Sums:
    """Move the parameters along the gradient of the mean objective over so many rows on all workers; return sums."""
    q = estep(model, batch)
    objective = model.objective(batch, q, noise).sum()
    optimizer.zero_grad(set_to_none=True)
    (-objective / rows).backward()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad = reduce(parameter.grad)
    optimizer.step()
    model.project()
    with torch.no_grad():
        statistics: Sums = model.statistics(batch, q, noise)
        return {"objective": objective.detach()} | statistics


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
