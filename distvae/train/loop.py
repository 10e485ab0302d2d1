"""The training loop: a generator of epoch records that can stop at any batch and resume there.

It does not use files, Ray or MLflow; it needs only torch and NumPy.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from distvae.config import Train
from distvae.data.dataset import Rows
from distvae.data.noise import noise_floor
from distvae.interface import (
    AnyEStep,
    AnyModel,
    Batch,
    ClosedForm,
    Engine,
    Posterior,
    Ranks,
    Reports,
    Scheduled,
    Searches,
    Sums,
    Updates,
)
from distvae.models.truncated import KeepsStates
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.numerics.arithmetic import Arithmetic
from distvae.numerics.metrics import declare
from distvae.numerics.noise import VALIDATION, Noise
from distvae.numerics.rows import Bands, HeldRows, Lanes, RowNumbers, divide, share_of
from distvae.train.batches import (
    BLOCK,
    READ_TOGETHER,
    Batches,
    batch_reader,
    has_missing,
)
from distvae.train.checkpoint import PositionFacts, load_weights, tensors_below, weights
from distvae.train.graphs import choose_steps, settings_of
from distvae.train.step import (
    Adam,
    EagerSteps,
    Rates,
    add,
    add_step,
    assess,
    base_steps,
    own_sums,
    sum_over,
    sums_by_worker,
)
from distvae.train.team import ALONE, Team, count_sharing, select_device

declare("bound", "bound", "objective", "kl")
declare("bound", "train_objective", "val_kl")
FIGURES_OF_TRAINING = declare("bound", "val_bound", "val_objective")
"""The metrics of epochs by which trials may be ranked."""
declare("sparsity", "val_hoyer")
declare("time", "seconds", "rows_per_second", "estep_seconds", "data_seconds", "mstep_seconds")


@dataclass
class Position:
    """The position of a training: its state except parameters, optimiser and populations."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    sigma: float = math.inf
    """The model's noise sigma after the last epoch; infinity for models without sigma."""
    shift: int = 0
    """Correction of the number of steps, after epochs on other rows with more or fewer batches."""


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch. Objectives, bounds and divergences are in nats per data point."""

    epoch: int
    """The number of finished epochs."""
    epochs: int
    train_objective: float
    """The mean over the epoch, while parameters change."""
    val_objective: float
    val_bound: float
    val_kl: float
    val_hoyer: float
    rate: float
    rows_per_second: float
    seconds: float
    """Training time since the run began, over all resumptions."""
    best: bool
    """True if the validation objective is the best so far, or if it cannot rank epochs."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Metrics of some models: sigma, active and dead latents, replaced states, seconds by phase."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics to log, without NaN."""
        figures = {
            k: float(v) for k, v in asdict(self).items() if k not in ("epochs", "best", "details")
        }
        return {k: v for k, v in (figures | dict(self.details)).items() if not math.isnan(v)}

    @classmethod
    def read(cls, record: Mapping[str, float], epochs: int) -> "Epoch":
        """Return an epoch from its record. The record does not tell whether it was the best."""
        names = {f.name for f in fields(cls)} - {"epoch", "epochs", "best", "details"}
        figures = {name: record.get(name, math.nan) for name in names}
        details = {name: value for name, value in record.items() if name not in names | {"epoch"}}
        return cls(
            epoch=int(record["epoch"]), epochs=epochs, best=False, details=details, **figures
        )


BELOW = 0.99
"""Training ends once a model's sigma is below this share of the noise in the rows, which is known
to about 1 %.
"""


@dataclass(frozen=True)
class Ending:
    """The rule by which a training ends after an epoch."""

    epochs: int
    patience: int | None
    """Training ends after this number of epochs without a better validation objective; None for
    no limit.
    """
    noise: float
    """Training ends once sigma falls below this noise in the rows; 0 for no limit."""

    @classmethod
    def of(
        cls, config: Train, rows: Rows, may_be_missing: bool, team: Team, scale: float
    ) -> "Ending":
        """Return the rule of a configuration for the training rows, equal on all workers.

        A value of 1 in the rows is `scale` in the units of the data.
        """
        noise = 0.0
        if config.sigma and not may_be_missing:
            noise = config.sigma / scale
        elif config.stop_at_noise and not may_be_missing and team.rank == 0:
            noise = noise_floor(rows)
        return cls(config.epochs, config.patience, team.gather(noise)[0])

    def is_reached(self, position: Position) -> bool:
        """Return whether a training ends at a position."""
        worse = position.epoch - position.best_epoch
        out_of_patience = self.patience is not None and worse >= self.patience
        return position.epoch >= self.epochs or out_of_patience or self.is_below_noise(position)

    def is_below_noise(self, position: Position) -> bool:
        """Return whether the model's sigma has fallen below the noise in the rows."""
        return position.sigma <= BELOW * self.noise


class Interrupted(Exception):
    """Training stopped between two batches, on request."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


def diverged(where: str) -> Diverged:
    """Return an error for an objective that is no longer finite, with advice."""
    return Diverged(f"the objective {where}; a smaller train.rate may help, or train.clip")


Watch = Callable[[RowNumbers, Posterior], None]
"""A function that is called with validation rows and their posteriors."""


class Sample:
    """One worker's share of the validation rows that are assessed after each epoch.

    The validation rows are the same after every epoch, for any number of workers. With
    `train.val_rows`, they are the first rows of a fixed random order with equally many rows from
    each lane.
    """

    def __init__(self, config: Train, rows: int, rank: int, size: int, keeps: bool) -> None:
        self.seed, self.rows, self.keeps = config.seed, rows, keeps
        self.count = rows if config.val_rows is None else min(config.val_rows, rows)
        self.lanes, self.rank, self.size = divide(rows, config.batch), rank, size

    def parts(self) -> Iterator[RowNumbers]:
        """Yield this worker's share of the sample in blocks: at least one block, maybe empty."""
        if self.count == self.rows:
            yield from self.every()
        else:
            yield from np.split(self.chosen, range(BLOCK, len(self.chosen), BLOCK))

    @cached_property
    def chosen(self) -> RowNumbers:
        """The rows of this worker in the sample."""
        held = self.lanes.held(self.rank, self.size)
        return np.sort(held.order(self.seed, VALIDATION)(0, self.count))

    def every(self) -> Iterator[RowNumbers]:
        """Yield this worker's share of all validation rows in blocks."""
        held = self._held()
        for first in range(0, max(len(held), 1), BLOCK):
            yield held.part(slice(first, first + BLOCK))

    def _held(self) -> HeldRows:
        """Return this worker's share of all rows: every `size`-th row if no worker holds rows."""
        stay = self.keeps or isinstance(self.lanes, Bands)
        lanes = self.lanes if stay else Lanes(self.rows, self.size)
        return lanes.held(self.rank, self.size)


def means(total: Sums, rows: int) -> dict[str, float]:
    """Return means over rows. The mean sparsity is over the rows with a finite sparsity."""
    averages = {}
    for name, value in total.items():
        count = total["sparse_rows"] if name == "hoyer" else rows
        averages[name] = float(value / count)
    return averages


FINITE_EVERY = 64  # batches between checks that the objective is finite
STOP_EVERY = 16  # batches between votes of several workers on whether to stop


class Trainer:
    """Trains a model and its E-step on a dataset."""

    def __init__(
        self,
        config: Train,
        model: AnyModel,
        estep: AnyEStep,
        train: Rows,
        val: Rows,
        team: Team = ALONE,
        device: torch.device | None = None,
        scale: float = 1.0,
    ) -> None:
        self.config, self.team = config, team
        self.device = device or select_device(config.device)
        self.arithmetic = Arithmetic.current(self.device)
        self.model, self.estep = model.to(self.device), estep.to(self.device)
        self.searches = self.estep if isinstance(self.estep, Searches) else None
        self.scheduled = self.model if isinstance(self.model, Scheduled) else None
        self.ranked = self.model if isinstance(self.model, Ranks) else None
        self.updates = self.model if isinstance(self.model, Updates) else None
        self.train, self.val = train, val
        may_be_missing = has_missing(train) or has_missing(val)
        self.may_be_missing = may_be_missing
        self.ending = Ending.of(config, train, may_be_missing, team, scale)
        lanes = divide(len(train), config.batch)
        keeps = self.searches is not None
        self.share = share_of(lanes, config.batch, team.rank, team.size, keeps)
        self.sample = Sample(config, len(val), team.rank, team.size, keeps)
        self.reader = batch_reader(config.seed, self.device, may_be_missing)
        workers = count_sharing(self.device, team.gather)
        together = self._batches_together(READ_TOGETHER)
        self.reader.keep(train, self.share, together, self.estep, workers)
        both = [*self.model.parameters(), *self.estep.parameters()]
        self.parameters = [parameter for parameter in both if parameter.requires_grad]
        self.batches = math.ceil(len(train) / config.batch)
        self.local_steps = config.local_steps if team.size > 1 else 0
        self.adam = Adam(self.parameters, ALONE if self.local_steps else team, config.clip)
        engine = choose_engine(config.gradients, self.model, self.estep)
        self.eager = EagerSteps(self.model, self.estep, self.adam, engine)
        self.steps = choose_steps(config, self.eager, self.estep)
        self.position = Position()
        self.rates = Rates(config, self.batches, self.device)
        self.range: tuple[float, ...] = ()
        """The smallest and the largest value of the training rows; empty if not known."""
        self.watch: Watch | None = None
        self.total: Sums = {}
        self.search_seconds = self.data_seconds = 0.0

    def run(self, stop: Callable[[], object] = lambda: False) -> Iterator[Epoch]:
        """Train, and yield a record after each epoch."""
        while not self.ending.is_reached(self.position):
            start, first = time.perf_counter(), self.position.batch
            self._finish_epoch(stop)
            yield self._record(start, len(self.train) - first * self.config.batch)

    def _finish_epoch(self, stop: Callable[[], object]) -> None:
        start, position = time.perf_counter(), self.position
        order = self.share.order(self.config.seed, position.epoch)
        batches = Batches(order, len(self.train), self.config.batch)
        together = self._batches_together(1)
        self.rates.begin_epoch(position.epoch)
        self.reader.begin_epoch(position.epoch, batches)
        while position.batch < self.batches:
            self.reader.advance(position.batch)
            if position.batch % together == 0:
                if self._must_stop(stop, together):
                    position.seconds += time.perf_counter() - start
                    raise Interrupted
                if self.searches:
                    block = batches.part(position.batch, position.batch + together)
                    self._search_block(self.searches, block)
            steps = self._steps_at_once(batches)
            rows = batches.part(position.batch, position.batch + steps)
            self._step(rows, batches.count(position.batch), steps)
            position.batch += steps
            last = position.batch == self.batches
            if self.updates and not last and self._is_update_due(self.updates, steps):
                self._update()
                for name in self.updates.since_update:
                    self.total[name].zero_()
            if self.local_steps and (last or position.batch % self.local_steps == 0):
                self.eager.average(self.team)
            if last or position.batch % FINITE_EVERY == 0:
                self._refuse_to_diverge()

    def _is_update_due(self, updates: Updates, steps: int) -> bool:
        """Return whether the last steps have ended one of the equal parts of an epoch after which
        updates are due.
        """
        if not updates.rows_of_update:
            return False
        parts = max(1, len(self.train) // updates.rows_of_update)
        ended = self.position.batch * parts // self.batches
        return ended > (self.position.batch - steps) * parts // self.batches

    def _update(self) -> Sums:
        """Update in closed form with the sums of all workers; return them."""
        total = sum_over(self.team, self.total)
        if isinstance(self.model, ClosedForm):
            self.model.maximise(total)
        return total

    def _batches_together(self, otherwise: int) -> int:
        """Return the number of batches in a block of a search, or in `otherwise` rows without a
        search.
        """
        rows = self.searches.block_size if self.searches else otherwise
        return max(1, rows // self.config.batch)

    def _steps_at_once(self, batches: Batches) -> int:
        """Return the number of steps to take at once.

        All their batches were read together. No check of the objective, and no average over
        workers, is due before the last step.
        """
        together = self._batches_together(READ_TOGETHER)
        average = self.local_steps or together
        limit = batches.whole_until(self.position.batch, FINITE_EVERY, together, average)
        return self.steps.at_once(limit, self._settings_after)

    def _settings_after(self, more: int) -> tuple[object, ...]:
        """Return the values that the model's schedules set for the step `more` after the next."""
        if self.scheduled:
            self.scheduled.at(base_steps(self.config, self._steps_in_all() + more))
        return settings_of(self.model)

    def steps_taken(self) -> int:
        """Return the number of steps, as if every epoch had `self.batches` batches."""
        return self.position.epoch * self.batches + self.position.batch

    def _steps_in_all(self) -> int:
        """Return the number of steps, with the actual steps on other rows, for warm-ups."""
        return self.steps_taken() + self.position.shift

    def _must_stop(self, stop: Callable[[], object], together: int) -> bool:
        """Return whether any worker was asked to stop. Several workers vote every few batches."""
        if self.team.size == 1:
            return bool(stop())
        every = math.lcm(together * math.ceil(STOP_EVERY / together), max(self.local_steps, 1))
        if self.position.batch % every:  # workers with equal parameters vote
            return False
        return bool(sum_over(self.team, {"asked": torch.tensor(float(bool(stop())))})["asked"])

    def _search_block(self, searches: Searches[AnyModel], rows: RowNumbers) -> None:
        batch, noise = self._batch(rows)
        start = time.perf_counter()
        add(self.total, searches.search_block(self.model, batch, noise))
        self.search_seconds += time.perf_counter() - start

    def step(self, rows: RowNumbers) -> None:
        """Take one step on this worker's share of `rows`, at the current learning rate."""
        self._step(self.share.select(rows), len(rows))

    def _step(self, rows: RowNumbers, of_all_workers: int, steps: int = 1) -> None:
        """Take `steps` steps on this worker's rows, each on an equal share of them, at the current
        learning rates. `of_all_workers` is the batch size over all workers.
        """
        self.adam.rate = self.rates.at(self.steps_taken(), steps)
        if self.scheduled:
            self.scheduled.at(base_steps(self.config, self._steps_in_all()))
        batch, noise = self._batch(rows)
        rows_of_step = len(rows) // steps if self.local_steps else of_all_workers
        add_step(self.total, self.steps.step(batch, noise, rows_of_step))

    def _batch(self, rows: RowNumbers) -> tuple[Batch, Noise]:
        start = time.perf_counter()
        batch, noise = self.reader.read(self.train, rows, self.position.epoch)
        self.data_seconds += time.perf_counter() - start
        return batch, noise

    def _refuse_to_diverge(self) -> None:
        add(self.total, self.eager.later_sums())
        sums = sum_over(self.team, {name: self.total[name] for name in ("objective", "finite")})
        if bool(sums["objective"].isfinite()):
            return
        batch, batches = int(sums["finite"] / self.team.size) + 1, self.batches
        where = f"batch {batch} of {batches} in epoch {self.position.epoch + 1}"
        raise diverged(f"is no longer finite at {where}")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return means over validation rows, with fixed draws and without warm-ups."""
        if self.scheduled:
            self.scheduled.at(math.inf)
        parts = self.sample.every() if self.watch else self.sample.parts()
        total: Sums = {}
        for part in parts:
            batch, noise = self.reader.read(self.val, part, VALIDATION)
            q = self.estep.infer(self.model, batch, 0)
            add(total, assess(self.model, q, batch, noise))
            if self.watch:
                self.watch(part, q)
        return means(sum_over(self.team, total), self.val_rows)

    @property
    def val_rows(self) -> int:
        """The number of validation rows assessed after each epoch: all rows if they are watched."""
        return len(self.val) if self.watch else self.sample.count

    def _record(self, start: float, rows: int) -> Epoch:
        """Finish an epoch: update in closed form, validate, and return its record."""
        position = self.position
        total = self._update()
        trained = time.perf_counter() - start
        details = self._details(total, trained)
        val = self.validate()
        if not math.isfinite(val["objective"]):
            where = f"epoch {position.epoch + 1}"
            raise diverged(f"of the validation rows is no longer finite after {where}")
        ranks = self.ranked is None or self.ranked.ranks(self.may_be_missing)
        best = val["objective"] > position.best or not ranks
        position.epoch, position.batch = position.epoch + 1, 0
        position.sigma = details.get("sigma", math.inf)
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
            rate=self.rates.last,
            rows_per_second=rows / trained,
            seconds=position.seconds,
            best=best,
            details=details,
        )

    def _details(self, total: Sums, trained: float) -> dict[str, float]:
        """Return the metrics that only some models and E-steps have."""
        details: dict[str, float] = {}
        for part in (self.model, self.estep):
            if isinstance(part, Reports):
                details |= part.telemetry(total, len(self.train))
        if self.searches:
            details["estep_seconds"] = self.search_seconds
            details["data_seconds"] = self.data_seconds
            details["mstep_seconds"] = trained - self.search_seconds - self.data_seconds
        if self.val_rows < len(self.val):
            details["val_rows"] = self.val_rows
        return details

    def state(self) -> tuple[dict[str, Tensor], PositionFacts]:
        """Return everything that a resumed run needs: tensors by name, and the position."""
        add(self.total, self.eager.later_sums())
        tensors = weights(self.model, self.estep) | self.adam.state()
        for name, value in sums_by_worker(self.team, self.total).items():
            tensors[f"totals.{name}"] = value
        return tensors, cast(PositionFacts, asdict(self.position))

    def restore(self, tensors: dict[str, Tensor], position: PositionFacts) -> None:
        """Restore a state."""
        load_weights(self.model, self.estep, tensors)
        self.position = Position(**position)
        placed = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        of_all = tensors_below("total", placed)  # version 0.1.0 stored these sums
        by_worker = {name: value.unsqueeze(0) for name, value in of_all.items()}
        self.total = own_sums(self.team, by_worker | tensors_below("totals", placed))
        self.adam.load(placed)


def choose_engine(gradients: str, model: AnyModel, estep: AnyEStep) -> Engine | None:
    """Return the engine for a model and an E-step, or None to use autograd."""
    if gradients == "autograd":
        return None
    on_cpu = next(model.parameters()).device.type == "cpu"
    if isinstance(model, VAE) and not on_cpu:
        from distvae.engines.encoder import find_encoder_engine

        return find_encoder_engine(model, estep)
    if type(model) is not TVAE:  # a subclass may have another objective
        return None
    if not on_cpu:
        from distvae.engines.tvae_gpu import find_tvae_engine

        return find_tvae_engine(model, estep)
    if not isinstance(estep, KeepsStates):
        return None
    from distvae.engines.tvae_cpu import TVAEEngine

    return TVAEEngine(model, estep)
