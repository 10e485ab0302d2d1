"""One training step for any model: posterior, objective, gradient, update by Adam."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from distvae.config import Train
from distvae.engines.device import SumsLater
from distvae.interface import (
    AnyModel,
    Batch,
    ClosedForm,
    Diverges,
    Engine,
    Posterior,
    Projects,
    Sums,
)
from distvae.numerics.metrics import hoyer
from distvae.numerics.noise import Noise
from distvae.train.team import Team

PRECISION = torch.float32
"""The precision of learning rates that torch's fused Adam requires on a GPU."""
EXPONENTS = {"none": 0.0, "root": 0.5, "linear": 1.0}
"""The exponent of batch / base_batch in the factor of the learning rate, by `scale_rate`."""
Inference = Callable[[AnyModel, Batch], Posterior]
"""The part of an E-step that a step needs."""
SettingsAfter = Callable[[int], tuple[object, ...]]
"""Returns the values that a model's schedules set for a step, by its distance to the next step."""


class Steps(Protocol):
    """Takes the steps of a training, eagerly or from recordings."""

    def at_once(self, limit: int, settings_after: SettingsAfter) -> int:
        """Return the number of steps to take at once, at most `limit`."""

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take one step, with the objective divided by `rows`, the batch size over all workers. If
        `batch` holds several batches of `rows` rows, take one step for each of them.
        """


class Adam:
    """Adam with a step counter per parameter, so that parameters may start to learn later."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], team: Team, clip: float | None = None
    ) -> None:
        self.parameters, self.team, self.clip = list(parameters), team, clip
        self.rate: float | Tensor = 0.0
        """The learning rate: a number, or a scalar tensor on the device of the parameters."""
        on_device = any(parameter.device.type != "cpu" for parameter in self.parameters)
        groups = [{"params": self.parameters}]  # a list of parameters must not be empty
        self.adam = torch.optim.Adam(groups, fused=True, capturable=on_device)
        for parameter in self.parameters:  # so that checkpoints always have the same tensors
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.adam.state[parameter] = {"step": step, **moments}

    def forget(self) -> None:
        """Clear the gradients."""
        self.adam.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Take a step with the summed gradients of all workers. A worker without rows adds zero.

        Parameters that do not learn yet stay unchanged.
        """
        learning = [parameter for parameter in self.parameters if parameter.requires_grad]
        if not learning:
            return
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.sum([parameter.grad for parameter in learning if parameter.grad is not None])
        if self.clip is not None:
            nn.utils.clip_grad_norm_(learning, self.clip)
        self.adam.param_groups[0]["lr"] = self.rate
        self.adam.step()

    @torch.no_grad()
    def average(self, team: Team) -> None:
        """Replace parameters and moments by their means over all workers."""
        averaged = [*self.parameters, *self.state().values()]
        team.sum(averaged)
        for tensor in averaged:
            tensor /= team.size

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser state of all parameters, by the names in checkpoints."""
        found = {}
        for place, parameter in enumerate(self.parameters):
            for name, value in self.adam.state[parameter].items():
                found[f"optimizer.{place}.{name}"] = value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the optimiser state. Parameters that are missing in `tensors` keep their state."""
        for name, value in self.state().items():
            if name in tensors:
                value.copy_(tensors[name])


class EagerSteps:
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


class Rates:
    """The learning rates of a training, on the device of its parameters."""

    def __init__(self, config: Train, batches: int, device: torch.device) -> None:
        self.config, self.batches, self.device = config, batches, device
        self.last = 0.0
        """The rate of the last step, as a number."""
        self.epoch: Tensor | None = None
        """The rates of an epoch on the device, or None on the host."""

    def begin_epoch(self, epoch: int) -> None:
        """Copy the rates of an epoch to the device."""
        if self.device.type == "cpu":
            return
        steps = range(epoch * self.batches, (epoch + 1) * self.batches)
        rates = [rate(self.config, step, self.batches) for step in steps]
        self.epoch = torch.tensor(rates, dtype=PRECISION).to(self.device, non_blocking=True)

    def at(self, step: int, steps: int = 1) -> float | Tensor:
        """Return the rate of a step: a number on the host, or a scalar on the device.

        On the device, several steps of an epoch get a tensor of rates, (steps,).
        """
        self.last = rate(self.config, step + steps - 1, self.batches)
        if self.epoch is None:
            return self.last
        first = step % self.batches
        return self.epoch[first] if steps == 1 else self.epoch[first : first + steps]


def rate(config: Train, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from zero."""
    warm = min(1.0, base_steps(config, step + 1) / config.warmup) if config.warmup else 1.0
    grown = min(1.0, (step + 1) / steps_per_epoch)
    factor = 1.0  # of the learning rate after the first epoch, for the batch size
    if config.base_batch is not None:
        factor = float((config.batch / config.base_batch) ** EXPONENTS[config.scale_rate])
    scale = 1.0 + grown * (factor - 1.0)
    return scale * warm * _scheduled(config, step, steps_per_epoch)


def base_steps(config: Train, steps: int) -> float:
    """Convert a number of steps to steps of `base_batch` rows."""
    if config.base_batch is None:
        return steps
    return steps * config.batch / config.base_batch


def _scheduled(config: Train, step: int, steps_per_epoch: int) -> float:
    span = config.rate - config.rate_low
    if config.schedule == "cosine":
        progress = step / (config.epochs * steps_per_epoch)
        return config.rate_low + span * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "cyclical":
        phase = (step / (config.cycle * steps_per_epoch)) % 1.0
        return config.rate_low + span * (1 - abs(2 * phase - 1))
    return config.rate


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
    if isinstance(q, Diverges):
        sums["kl"] = q.kl().sum()
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
