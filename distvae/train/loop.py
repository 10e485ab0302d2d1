"""The training loop: a generator of epoch records that can stop at any batch and go on from there.

It knows neither files nor Ray nor MLflow, and needs torch and NumPy alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.interface import Batch
from distvae.numerics.arithmetic import Arithmetic
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import VALIDATION, Noise, order
from distvae.train import devices
from distvae.train.adam import Adam
from distvae.train.epoch import Epoch
from distvae.train.schedule import rate
from distvae.train.step import Sums, add, ascend, assess
from distvae.train.team import ALONE, Team

BLOCK = 1024  # rows of a validation batch
PATROL = 64  # batches between two looks at whether the objective is still finite
AGREED = 16  # batches between two looks at whether any of several workers was asked to stop


class Interrupted(Exception):
    """Training was asked to stop, and did so between two batches."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


@dataclass
class Position:
    """Where training stands: all of it that is neither parameter nor optimiser state."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """A model, its E-step and its data on their way through the epochs."""

    def __init__(
        self,
        config: Train,
        model: Any,
        estep: Any,
        train: Rows,
        val: Rows,
        team: Team = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.team = config, team
        self.device = device or devices.select_device(config.device)
        self.arithmetic = Arithmetic.current(self.device)
        self.model, self.estep = model.to(self.device), estep.to(self.device)
        self.train, self.val = train, val
        self.held = Lanes.of(len(train), config.batch).held(team.rank, team.size)
        self.incomplete = any(
            np.isnan(x[i : i + BLOCK]).any() for x in (train, val) for i in range(0, len(x), BLOCK)
        )
        self.parameters = [p for p in [*model.parameters(), *estep.parameters()] if p.requires_grad]
        self.batches = math.ceil(len(train) / config.batch)
        self.alone = config.local_steps if team.size > 1 else 0
        self.adam = Adam(self.parameters, ALONE if self.alone else team, self.config.clip)
        self.position = Position()
        self.range: tuple[float, ...] = ()
        """The least and the largest value of the rows to train on, where somebody has looked."""
        self.total: Sums = {}
        self.searching = self.reading = (
            0.0  # seconds of this epoch spent in visits to populations, and on data
        )

    def run(self, stop: Callable[[], object] = lambda: False) -> Iterator[Epoch]:
        """Train, and yield a record after each epoch."""
        while self.position.epoch < self.config.epochs and not self.out_of_patience():
            began, first = time.perf_counter(), self.position.batch
            self._finish_epoch(stop)
            rows = min((self.batches - first) * self.config.batch, len(self.train))
            yield self._record(began, rows)

    def out_of_patience(self) -> bool:
        """Whether validation has not become better for too long."""
        patience = self.config.patience
        return patience is not None and self.position.epoch - self.position.best_epoch >= patience

    def _finish_epoch(self, stop: Callable[[], object]) -> None:
        began, position = time.perf_counter(), self.position
        schedule = self._schedule()
        visit = max(
            1, self.estep.block // self.config.batch
        )  # batches that the E-step looks at together
        while position.batch < self.batches:
            if position.batch % visit == 0:
                if self._asked(stop, visit):
                    position.seconds += time.perf_counter() - began
                    raise Interrupted
                self._search_block(self._cut(schedule, visit), self._cut(schedule, visit, visit))
            self.step(self._cut(schedule, 1))
            position.batch += 1
            if self.alone and (position.batch % self.alone == 0 or position.batch == self.batches):
                self._average()
            if position.batch % PATROL == 0 or position.batch == self.batches:
                self._refuse_to_diverge()

    def _schedule(self) -> NDArray[np.int64]:
        """The epoch's rows in their order; populations want every batch to take as many from each
        of their holders.
        """
        seed, epoch = self.config.seed, self.position.epoch
        return (
            self.held.lanes.schedule(seed, epoch)
            if self.estep.block
            else order(seed, epoch, len(self.train))
        )

    def _own(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some rows that are this worker's."""
        return (
            self.held.select(rows) if self.estep.block else rows[self.team.rank :: self.team.size]
        )

    def _asked(self, stop: Callable[[], object], visit: int) -> bool:
        """Whether any worker was asked to stop; several come to that agreement every few
        batches.
        """
        if self.team.size == 1:
            return bool(stop())
        if self.position.batch // visit % math.ceil(AGREED / visit) or (
            self.alone and self.position.batch % self.alone
        ):
            return False
        return bool(self._together({"asked": torch.tensor(float(bool(stop())))})["asked"])

    def _together(self, sums: Sums) -> Sums:
        """Sums over all workers."""
        shared = {name: sums[name].double().clone() for name in sorted(sums)}
        self.team.sum(list(shared.values()))
        return shared

    def _cut(self, schedule: NDArray[np.int64], batches: int, later: int = 0) -> NDArray[np.int64]:
        """The rows of the next few batches, or of those that come so much later."""
        place = (self.position.batch + later) * self.config.batch
        return schedule[place : place + batches * self.config.batch]

    def _search_block(self, rows: NDArray[np.int64], following: NDArray[np.int64]) -> None:
        if self.estep.block:
            batch, noise = self._batch(self._own(rows))
            began = time.perf_counter()
            add(self.total, self.estep.search_block(self.model, batch, noise))
            self.estep.prefetch(torch.from_numpy(self._own(following)))
            self.searching += time.perf_counter() - began

    def step(self, rows: NDArray[np.int64]) -> None:
        """One step on these rows, at the rate of the position."""
        count = self.position.epoch * self.batches + self.position.batch
        self.adam.rate = rate(self.config, count, self.batches)
        self.model.at(count)
        batch, noise = self._batch(self._own(rows))
        add(
            self.total,
            ascend(
                self.model,
                self.estep,
                self.adam,
                batch,
                noise,
                len(batch.row if self.alone else rows),
            ),
        )
        add(self.total, {"finite": self.total["objective"].isfinite()})

    @torch.no_grad()
    def _average(self) -> None:
        """Make the parameters of all workers, and their moments, the mean of what each came to
        alone.
        """
        moments = [value for moments in self.adam.moments for value in moments.values()]
        shared = [*self.parameters, *moments]
        self.team.sum(shared)
        for tensor in shared:
            tensor /= self.team.size
        self.model.project()

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Batch, Noise]:
        began = time.perf_counter()
        batch, noise = self._take(self.train, rows, self.position.epoch)
        self.reading += time.perf_counter() - began
        return batch, noise

    def _take(self, data: Rows, rows: NDArray[np.int64], epoch: int) -> tuple[Batch, Noise]:
        """Bring some rows to the device, and the draws that belong to them in an epoch."""
        row = torch.from_numpy(rows)
        return self._values(data, row), Noise(
            self.config.seed, epoch, row.to(self.device, non_blocking=True)
        )

    def _values(self, data: Rows, row: Tensor) -> Batch:
        x = torch.from_numpy(data[row.numpy()]).to(self.device, non_blocking=True)
        if not self.incomplete:
            return Batch(x, row)
        seen = ~x.isnan()
        return Batch(x.where(seen, 0.0), row, seen)

    def _refuse_to_diverge(self) -> None:
        told = {name: self.total[name] for name in ("objective", "finite")}
        told = told if self.team.size == 1 else self._together(told)
        if bool(told["objective"].isfinite()):
            return
        batch, batches = int(told["finite"] / self.team.size) + 1, self.batches
        raise Diverged(
            f"the objective is no longer finite at batch {batch} of {batches} in epoch"
            f" {self.position.epoch + 1}; a smaller train.rate may help, or train.clip"
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the validation rows: fixed draws, warm-ups ended."""
        self.model.at(math.inf)
        total: Sums = {}
        own = self._own(np.arange(len(self.val)))
        for rows in np.split(own, range(BLOCK, len(own), BLOCK)):
            batch, noise = self._take(self.val, rows, VALIDATION)
            add(total, assess(self.model, self.estep.infer(self.model, batch, 0), batch, noise))
        total = self._together(total)
        counts = {
            name: total["sparse_rows"] if name == "hoyer" else len(self.val) for name in total
        }
        return {name: float(value / counts[name]) for name, value in total.items()}

    def _record(self, began: float, rows: int) -> Epoch:
        position = self.position
        total = self._together(self.total)
        self.model.maximise(total)
        trained = time.perf_counter() - began
        details = self.model.telemetry(total) | self.estep.telemetry()
        if self.estep.block:
            spent = {"estep_seconds": self.searching, "data_seconds": self.reading}
            details |= spent | {"mstep_seconds": trained - sum(spent.values())}
        val = self.validate()
        last_rate = self.adam.rate
        best = val["objective"] > position.best
        position.epoch, position.batch = position.epoch + 1, 0
        self.total, self.searching, self.reading = {}, 0.0, 0.0
        position.seconds += time.perf_counter() - began
        if best:
            position.best, position.best_epoch = val["objective"], position.epoch
        return Epoch(
            epoch=position.epoch,
            epochs=self.config.epochs,
            train_objective=float(total["objective"]) / len(self.train),
            val_objective=val["objective"],
            val_bound=val["bound"],
            val_kl=val.get("kl", math.nan),
            val_hoyer=val["hoyer"],
            rate=last_rate,
            rows_per_second=rows / trained,
            seconds=position.seconds,
            best=best,
            details=details,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed run needs: tensors by name, and the position."""
        moments = {
            f"optimizer.{i}.{name}": value
            for i, own in enumerate(self.adam.moments)
            for name, value in own.items()
        }
        totals = {f"total.{name}": value for name, value in self._together(self.total).items()}
        return weights(self.model, self.estep) | moments | totals, asdict(self.position)

    def restore(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Go on from where a state was taken."""
        load_weights(self.model, self.estep, tensors)
        self.position = Position(**position)
        placed = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        self.total = {
            n: value if self.team.rank == 0 else value.zero_()
            for n, value in _below("total", placed).items()
        }
        for i in range(len(self.parameters)):
            self.adam.restore(i, _below(f"optimizer.{i}", placed))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with a prefix, without it."""
    return {
        n.removeprefix(f"{prefix}."): value
        for n, value in tensors.items()
        if n.startswith(f"{prefix}.")
    }


def weights(model: Any, estep: Any) -> dict[str, Tensor]:
    """Parameters and buffers of both, by name."""
    parts = {"model": model, "estep": estep}
    return {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def load_weights(model: Any, estep: Any, tensors: dict[str, Tensor]) -> None:
    """The inverse of `weights`."""
    for part, module in {"model": model, "estep": estep}.items():
        module.load_state_dict(_below(part, tensors))
