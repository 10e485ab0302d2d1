"""One step: posterior, objective, gradient, update; for any model, on any number of workers."""

from collections.abc import Callable

import torch

from distvae.interface import AnyModel, Batch, ClosedForm, Posterior, Projects, Sums
from distvae.numerics.measures import hoyer
from distvae.numerics.noise import Noise
from distvae.train.adam import Adam

Inference = Callable[[AnyModel, Batch], Posterior]
"""The part of an E-step that a step needs."""


class Ascent:
    """A model, its E-step and their optimiser, which step along the gradient of the objective."""

    def __init__(self, model: AnyModel, estep: Inference, adam: Adam) -> None:
        self.model, self.estep, self.adam = model, estep, adam
        self.closed_form = model if isinstance(model, ClosedForm) else None
        self.projects = model if isinstance(model, Projects) else None

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take a step along the gradient of the mean objective over so many rows of all workers.

        Return sums over this worker's batch, under the parameters before the step.
        """
        self.adam.forget()
        sums = self._differentiate(batch, noise, rows) if len(batch.row) else {}
        self.adam.step()
        if self.projects:
            self.projects.project()
        return sums

    def _differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        q = self.estep(self.model, batch)
        objective = self.model.objective(batch, q, noise)
        objective.backward(torch.full_like(objective, -1 / rows))
        sums = {"objective": objective.detach().sum()}
        if self.closed_form:
            with torch.no_grad():
                sums |= self.closed_form.statistics(batch, q, noise)
        return sums


@torch.no_grad()
def assess(model: AnyModel, q: Posterior, batch: Batch, noise: Noise) -> Sums:
    """Return sums of the objective, the bound, the sparsity of the codes, and the divergence."""
    sparsity = hoyer(q.code)
    sums = {
        "objective": model.objective(batch, q, noise).sum(),
        "bound": model.bound(batch, q, noise).sum(),
        "hoyer": sparsity.nansum(),
        "sparse_rows": sparsity.isfinite().sum(),
    }
    if isinstance(model, ClosedForm):
        statistics = model.statistics(batch, q, noise)
        if "kl" in statistics:
            sums["kl"] = statistics["kl"]
    return sums


def add(total: Sums, sums: Sums) -> None:
    """Add sums to a total, in double precision."""
    for name, value in sums.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value.to(torch.float64, copy=True)
