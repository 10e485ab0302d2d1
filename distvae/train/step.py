"""One training step for any model: posterior, objective, gradient, update."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from distvae.engines.device import SumsLater
from distvae.interface import (
    AnyModel,
    Batch,
    ClosedForm,
    Engine,
    Posterior,
    Projects,
    Sums,
)
from distvae.numerics.metrics import hoyer
from distvae.numerics.noise import Noise
from distvae.train.adam import Adam
from distvae.train.team import Team

Inference = Callable[[AnyModel, Batch], Posterior]
"""The part of an E-step that a step needs."""
SettingsAfter = Callable[[int], tuple[object, ...]]
"""Returns the values that a model's schedules set for a step, by its distance to the next step."""


class Ascent:
    """Takes eager steps along the gradient of the objective, for a model and its E-step."""

    def __init__(
        self, model: AnyModel, estep: Inference, adam: Adam, engine: Engine | None = None
    ) -> None:
        self.model, self.estep, self.adam, self.engine = model, estep, adam, engine
        self.closed_form = model if isinstance(model, ClosedForm) else None
        self.projects = model if isinstance(model, Projects) else None
        self.sums_later = engine if isinstance(engine, SumsLater) else None

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take a step along the gradient of the objective, divided by the `rows` of all workers.

        Return sums over this worker's batch, under the parameters before the step. With a
        `SumsLater` engine, the sums of several steps are returned together, and {} before.
        """
        self.adam.forget()
        sums = self._differentiate(batch, noise, rows) if len(batch.row) else {}
        self.move()
        return sums

    def at_once(self, limit: int, settings_after: SettingsAfter) -> int:
        """Return 1: eager steps are taken one by one."""
        return 1

    def later_sums(self) -> Sums:
        """Return the sums of steps whose sums were not returned yet."""
        return self.sums_later.sums() if self.sums_later else {}

    def move(self) -> None:
        """Update the parameters with their gradients."""
        self.adam.step()
        if self.projects:
            self.projects.project()

    def average(self, team: Team) -> None:
        """Replace parameters and moments by their means over all workers."""
        self.adam.average(team)
        if self.projects:
            self.projects.project()

    def _differentiate(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        if self.engine:
            return self.engine.differentiate(batch, noise, rows)
        q = self.estep(self.model, batch)
        objective = self.model.objective(batch, q, noise)
        if objective.requires_grad:  # not if all parameters are fitted in closed form
            start_backward(objective, torch.full_like(objective, -1 / rows))
        sums = {"objective": objective.detach().sum()}
        if self.closed_form:
            with torch.no_grad():
                sums |= self.closed_form.statistics(batch, q, noise)
        return sums


class Steps(Protocol):
    """Takes the steps of a training, eagerly or from recordings."""

    def at_once(self, limit: int, settings_after: SettingsAfter) -> int:
        """Return the number of steps to take at once, at most `limit`."""

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take one step, with the objective divided by `rows`, the batch size over all workers. If
        `batch` holds several batches of `rows` rows, take one step for each of them.
        """


def start_backward(objective: Tensor, gradient: Tensor) -> None:
    """Backpropagate as `objective.backward(gradient)` does, with the same bits.

    On the CPU, `objective.backward(gradient)` would import SymPy, which takes half a second. On a
    GPU, a dot product would launch more kernels.
    """
    if objective.device.type == "cpu":
        torch.dot(objective, gradient).backward()
    else:
        objective.backward(gradient)


@torch.no_grad()
def assess(model: AnyModel, q: Posterior, batch: Batch, noise: Noise) -> Sums:
    """Return sums of the objective, the bound, the sparsity of codes, and the KL divergence."""
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


def add_step(total: Sums, sums: Sums) -> None:
    """Add the sums of a step to a total, and count the step if the objective is still finite."""
    add(total, sums)
    if sums and "finite" not in sums:
        add(total, {"finite": total["objective"].abs() < math.inf})


def sum_over(team: Team, sums: Sums) -> Sums:
    """Return the sums over all workers of a team, in double precision."""
    totals = {name: sums[name].double().clone() for name in sorted(sums)}
    team.sum(list(totals.values()))
    return totals


def sums_by_worker(team: Team, sums: Sums) -> Sums:
    """Return the sums of each worker of a team, (workers, ...), in double precision."""
    rows = {}
    for name, value in sums.items():
        rows[name] = value.new_zeros(team.size, *value.shape, dtype=torch.float64)
        rows[name][team.rank] = value
    return sum_over(team, rows)


def own_sums(team: Team, by_worker: Sums) -> Sums:
    """Return the sums of this worker. If the number of workers has changed, worker 0 gets all."""
    own = {}
    for name, rows in by_worker.items():
        if len(rows) == team.size:
            own[name] = rows[team.rank].clone()
        else:
            own[name] = rows.sum(0) if team.rank == 0 else torch.zeros_like(rows[0])
    return own
