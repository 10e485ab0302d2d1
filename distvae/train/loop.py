"""The training loop: a generator of epoch records that can stop at any batch and resume from there.

It knows neither files nor Ray nor MLflow, and needs torch and NumPy alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import cast

import numpy as np
import torch
from torch import Tensor

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.interface import (
    AnyEStep,
    AnyModel,
    Asynchronous,
    Batch,
    ClosedForm,
    Reports,
    Scheduled,
    Searches,
    Sums,
)
from distvae.numerics.arithmetic import Arithmetic
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import VALIDATION, Noise, order
from distvae.train import devices
from distvae.train.adam import Adam
from distvae.train.batches import BLOCK, BatchReader, Numbers, has_missing
from distvae.train.documents import PositionFacts
from distvae.train.epoch import Epoch, Position
from distvae.train.schedule import rate
from distvae.train.step import Ascent, add, assess
from distvae.train.team import ALONE, Team
from distvae.train.weights import load_weights, tensors_below, weights

FINITE_EVERY = 64  # batches between two checks that the objective is finite
STOP_EVERY = 16  # batches between two votes on whether several workers stop


class Interrupted(Exception):
    """Training was asked to stop, and stopped between two batches."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


class Trainer:
    """A model, its E-step and its data on their way through the epochs."""

    def __init__(
        self,
        config: Train,
        model: AnyModel,
        estep: AnyEStep,
        train: Rows,
        val: Rows,
        team: Team = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.team = config, team
        self.device = device or devices.select_device(config.device)
        self.arithmetic = Arithmetic.current(self.device)
        self.model, self.estep = model.to(self.device), estep.to(self.device)
        self.searches = self.estep if isinstance(self.estep, Searches) else None
        self.scheduled = self.model if isinstance(self.model, Scheduled) else None
        self.train, self.val = train, val
        self.held = Lanes.of(len(train), config.batch).held(team.rank, team.size)
        may_be_missing = has_missing(train) or has_missing(val)
        self.reader = BatchReader(config.seed, self.device, may_be_missing)
        both = [*self.model.parameters(), *self.estep.parameters()]
        self.parameters = [parameter for parameter in both if parameter.requires_grad]
        self.batches = math.ceil(len(train) / config.batch)
        self.local_steps = config.local_steps if team.size > 1 else 0
        self.adam = Adam(self.parameters, ALONE if self.local_steps else team, config.clip)
        self.ascent = Ascent(self.model, self.estep, self.adam)
        self.position = Position()
        self.range: tuple[float, ...] = ()
        """The smallest and the largest value of the rows to train on, where they were looked at."""
        self.total: Sums = {}
        self.search_seconds = 0.0
        self.data_seconds = 0.0

    def run(self, stop: Callable[[], object] = lambda: False) -> Iterator[Epoch]:
        """Train, and yield a record after each epoch."""
        while self.position.epoch < self.config.epochs and not self.out_of_patience():
            start, first = time.perf_counter(), self.position.batch
            self._finish_epoch(stop)
            rows = min((self.batches - first) * self.config.batch, len(self.train))
            yield self._record(start, rows)

    def out_of_patience(self) -> bool:
        """Return whether validation has not improved for too long."""
        patience = self.config.patience
        return patience is not None and self.position.epoch - self.position.best_epoch >= patience

    def _finish_epoch(self, stop: Callable[[], object]) -> None:
        start, position = time.perf_counter(), self.position
        schedule = self._schedule()
        block_size = self.searches.block_size if self.searches else 0
        together = max(1, block_size // self.config.batch)  # batches of a block
        while position.batch < self.batches:
            if position.batch % together == 0:
                if self._must_stop(stop, together):
                    position.seconds += time.perf_counter() - start
                    raise Interrupted
                block = self._cut(schedule, together)
                self._search_block(block, self._cut(schedule, together, together))
            self.step(self._cut(schedule, 1))
            position.batch += 1
            last = position.batch == self.batches
            if self.local_steps and (last or position.batch % self.local_steps == 0):
                self._average()
            if last or position.batch % FINITE_EVERY == 0:
                self._refuse_to_diverge()

    def _schedule(self) -> Numbers:
        """Return the epoch's rows in their order.

        With populations every batch takes as many rows from each of their holders.
        """
        seed, epoch = self.config.seed, self.position.epoch
        if self.searches:
            return self.held.lanes.schedule(seed, epoch)
        return order(seed, epoch, len(self.train))

    def _rows_of_worker(self, rows: Numbers) -> Numbers:
        """Return those of some rows that this worker trains on."""
        if self.searches:
            return self.held.select(rows)
        return rows[self.team.rank :: self.team.size]

    def _must_stop(self, stop: Callable[[], object], together: int) -> bool:
        """Return whether any worker was asked to stop; several workers vote every few batches."""
        if self.team.size == 1:
            return bool(stop())
        blocks = self.position.batch // together
        if blocks % math.ceil(STOP_EVERY / together):
            return False
        if self.local_steps and self.position.batch % self.local_steps:
            return False
        votes = self._together({"asked": torch.tensor(float(bool(stop())))})
        return bool(votes["asked"])

    def _together(self, sums: Sums) -> Sums:
        """Return the sums over all workers."""
        totals = {name: sums[name].double().clone() for name in sorted(sums)}
        self.team.sum(list(totals.values()))
        return totals

    def _cut(self, schedule: Numbers, batches: int, later: int = 0) -> Numbers:
        """Return the rows of the next few batches, or of those that come so many batches later."""
        place = (self.position.batch + later) * self.config.batch
        return schedule[place : place + batches * self.config.batch]

    def _search_block(self, rows: Numbers, following: Numbers) -> None:
        if not self.searches:
            return
        batch, noise = self._batch(self._rows_of_worker(rows))
        start = time.perf_counter()
        add(self.total, self.searches.search_block(self.model, batch, noise))
        if isinstance(self.estep, Asynchronous):
            self.estep.prefetch(torch.from_numpy(self._rows_of_worker(following)))
        self.search_seconds += time.perf_counter() - start

    def step(self, rows: Numbers) -> None:
        """Take one step on these rows, at the learning rate of the position."""
        count = self.position.epoch * self.batches + self.position.batch
        self.adam.rate = rate(self.config, count, self.batches)
        if self.scheduled:
            self.scheduled.at(count)
        batch, noise = self._batch(self._rows_of_worker(rows))
        of_all_workers = len(batch.row) if self.local_steps else len(rows)
        add(self.total, self.ascent.step(batch, noise, of_all_workers))
        add(self.total, {"finite": self.total["objective"].isfinite()})

    @torch.no_grad()
    def _average(self) -> None:
        """Replace the parameters of all workers, and their moments, by their mean."""
        moments = [value for moments in self.adam.moments for value in moments.values()]
        averaged = [*self.parameters, *moments]
        self.team.sum(averaged)
        for tensor in averaged:
            tensor /= self.team.size
        if self.ascent.projects:
            self.ascent.projects.project()

    def _batch(self, rows: Numbers) -> tuple[Batch, Noise]:
        start = time.perf_counter()
        batch, noise = self.reader.read(self.train, rows, self.position.epoch)
        self.data_seconds += time.perf_counter() - start
        return batch, noise

    def _refuse_to_diverge(self) -> None:
        sums = {name: self.total[name] for name in ("objective", "finite")}
        if self.team.size > 1:
            sums = self._together(sums)
        if bool(sums["objective"].isfinite()):
            return
        batch, batches = int(sums["finite"] / self.team.size) + 1, self.batches
        raise Diverged(
            f"the objective is no longer finite at batch {batch} of {batches} in epoch"
            f" {self.position.epoch + 1}; a smaller train.rate may help, or train.clip"
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return means over the validation rows, with fixed draws and after all warm-ups."""
        if self.scheduled:
            self.scheduled.at(math.inf)
        total: Sums = {}
        rows_of_worker = self._rows_of_worker(np.arange(len(self.val)))
        for rows in np.split(rows_of_worker, range(BLOCK, len(rows_of_worker), BLOCK)):
            batch, noise = self.reader.read(self.val, rows, VALIDATION)
            q = self.estep.infer(self.model, batch, 0)
            add(total, assess(self.model, q, batch, noise))
        total = self._together(total)
        averages = {}
        for name, value in total.items():
            count = total["sparse_rows"] if name == "hoyer" else len(self.val)
            averages[name] = float(value / count)
        return averages

    def _record(self, start: float, rows: int) -> Epoch:
        """Finish an epoch: update in closed form, validate, and return its record."""
        position = self.position
        total = self._together(self.total)
        if isinstance(self.model, ClosedForm):
            self.model.maximise(total)
        trained = time.perf_counter() - start
        details = self._details(total, trained)
        val = self.validate()
        last_rate = self.adam.rate
        best = val["objective"] > position.best
        position.epoch, position.batch = position.epoch + 1, 0
        self.total, self.search_seconds, self.data_seconds = {}, 0.0, 0.0
        position.seconds += time.perf_counter() - start
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

    def _details(self, total: Sums, trained: float) -> dict[str, float]:
        """Return the figures that this model and this E-step add to an epoch's record."""
        details: dict[str, float] = {}
        for part in (self.model, self.estep):
            if isinstance(part, Reports):
                details |= part.telemetry(total, len(self.train))
        if isinstance(self.estep, Asynchronous):
            details |= self.estep.timings()
        if self.searches:
            beside = self.search_seconds + self.data_seconds
            details["estep_seconds"] = self.search_seconds
            details["data_seconds"] = self.data_seconds
            details["mstep_seconds"] = trained - beside
        return details

    def state(self) -> tuple[dict[str, Tensor], PositionFacts]:
        """Return everything that a resumed run needs: tensors by name, and the position."""
        tensors = weights(self.model, self.estep)
        for i, moments in enumerate(self.adam.moments):
            for name, value in moments.items():
                tensors[f"optimizer.{i}.{name}"] = value
        for name, value in self._together(self.total).items():
            tensors[f"total.{name}"] = value
        return tensors, cast(PositionFacts, asdict(self.position))

    def restore(self, tensors: dict[str, Tensor], position: PositionFacts) -> None:
        """Resume from a state."""
        load_weights(self.model, self.estep, tensors)
        self.position = Position(**position)
        placed = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        self.total = tensors_below("total", placed)
        if self.team.rank > 0:
            for value in self.total.values():
                value.zero_()
        for i in range(len(self.parameters)):
            self.adam.restore(i, tensors_below(f"optimizer.{i}", placed))
