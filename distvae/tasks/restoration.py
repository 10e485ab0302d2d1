"""Restoration of one picture or sound by a model that is trained on its own windows.

Each restored value is the mean of E_q[mu(z)] (`window_decoder.py`) over the windows that cover it.
The model treats as noise what no state explains, and ignores missing values until this last step.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from distvae.config import Config
from distvae.data.family import HasWindows
from distvae.data.windows.missing import keep_observed, silenced
from distvae.data.windows.patches import Patches, distinct_channels
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import AnyEStep, AnyModel, Batch, Posterior
from distvae.models.population import words_of
from distvae.numerics.array_types import Doubles, Floats
from distvae.numerics.lanes import RowNumbers
from distvae.tasks.fidelity import fidelity, fidelity_gains
from distvae.tasks.presets import RESTORING, corrupted_windows, refuse_unfit, restored_windows
from distvae.tasks.window_decoder import WindowDecoder
from distvae.train.bits import agree_on_arithmetic
from distvae.train.epoch import Epoch
from distvae.train.run import Run
from distvae.train.run_folder import check_run_folder
from distvae.train.session import RunOptions, build_trainer, train_in_folder

BLOCK = 1024
"""Rows that are restored together; each of their distinct states is decoded once."""

RECIPE = "restoration"
"""The name of the recipe of a restoration, in its run folder."""
STAGES = "stages.jsonl"
"""The file of a run folder with a line for each epoch of a restoration."""

TIMED_ROWS = 1024
"""Rows of the short training that measures the time of an epoch."""


@dataclass(frozen=True)
class Stage:
    """The state of a restoration after an epoch."""

    epoch: int
    """Epochs finished so far."""
    epochs: int
    bound: float
    """Nats per window in the units of the data, under the parameters at the end of the epoch."""
    seconds: float
    """Since training began."""
    sigma: float = math.nan
    """Standard deviation of the noise that a TVAE has found, in the units of the data."""
    active: float = math.nan
    """Mean number of active latents of a window, where latents are binary."""
    close: Mapping[str, float] = field(default_factory=dict)
    """Scores against a reference, if there is one."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers to log."""
        numbers = asdict(self)
        del numbers["epochs"], numbers["close"]
        known = {name: float(value) for name, value in numbers.items() if not math.isnan(value)}
        return known | dict(self.close)


class RunDestination(NamedTuple):
    """The run folder of a restoration, and whether it is resumed or replaced."""

    folder: Path
    resume: bool = False
    force: bool = False


class Restoration:
    """The training of a model on the windows of one array (..., channels).

    Missing values of the array are NaN.
    """

    def __init__(
        self,
        config: Config,
        array: Floats,
        name: str = "image",
        destination: RunDestination | None = None,
    ) -> None:
        windows = check_restorable(config, array, name)
        self.config, self.destination = config, destination
        self.patches = windows.cut(array)
        self.dataset = windows.dataset(name, self.patches)
        if destination:
            run = (self.dataset, Folder(destination.folder), RECIPE)
            check_run_folder(config, *run, destination.resume, destination.force)
        resumed = Folder(destination.folder) if destination and destination.resume else None
        self.arithmetic = agree_on_arithmetic(config.train, folder=resumed)
        with self.arithmetic.applied():
            self.trainer = build_trainer(config, self.dataset)
        self.trainer.watch = self._restore_windows
        self._decode = WindowDecoder.of(config, self.patches.grid)
        self._restored = np.empty_like(self.patches.rows)
        self._restored_at: tuple[int, int] | None = None

    def run(self, stop: Callable[[], object] = lambda: False) -> Iterator[Stage]:
        """Train, and yield the state after each epoch."""
        with self.arithmetic.applied():
            for epoch in self._epochs(stop):
                self._restored_at = self._place
                yield self.stage(epoch)

    def _restore_windows(self, rows: RowNumbers, q: Posterior) -> None:
        """Restore some windows at the end of an epoch, when validation has decoded their states."""
        self._restored[rows] = self._decode(self.trainer.model, q, rows)

    def _epochs(self, stop: Callable[[], object]) -> Iterator[Epoch]:
        if self.destination is None:
            return self.trainer.run(stop)
        out, resume, force = self.destination
        options = RunOptions(RECIPE, resume, force, stop)
        return train_in_folder(self.trainer, self.config, self.dataset, out, options)

    def seconds_per_epoch(self) -> float:
        """Estimate the time of an epoch by a short training on a few rows."""
        count = len(self.patches.rows)
        rows = self.patches.rows[:: math.ceil(count / TIMED_ROWS)]
        few = replace(self.dataset, splits=dict.fromkeys(self.dataset.splits, rows))
        # On a GPU, the last step of an epoch is recorded in the third one.
        endless = {"patience": None, "stop_at_noise": False, "sigma": None}
        config = self.config.with_("train", epochs=4, **endless)
        with self.arithmetic.applied():
            *_, first, second = build_trainer(config, few).run()
        return (second.seconds - first.seconds) * count / len(rows)

    def stage(self, epoch: Epoch) -> Stage:
        """Return the state after an epoch, in the units of the data."""
        scale, rows = self.patches.scale, self.patches.rows
        observed = float(np.isfinite(rows).sum()) / len(rows)
        return Stage(
            epoch=epoch.epoch,
            epochs=epoch.epochs,
            bound=epoch.val_bound - observed * math.log(scale),
            seconds=epoch.seconds,
            sigma=scale * epoch.details.get("sigma", math.nan),
            active=epoch.details.get("active", math.nan),
        )

    @property
    def noise(self) -> float:
        """The noise in the windows below which training ends, in the units of the data; or 0."""
        return self.patches.scale * self.trainer.ending.noise

    @property
    def _place(self) -> tuple[int, int]:
        """The epochs and the batches that the model has been trained on."""
        position = self.trainer.position
        return position.epoch, position.batch

    @property
    def _is_below_noise(self) -> bool:
        return self.trainer.ending.is_below_noise(self.trainer.position)

    @property
    def has_started(self) -> bool:
        """True if the model has been trained on any batch."""
        return self._place > (0, 0)

    @property
    def progress(self) -> str:
        """The place in training that the model has reached, in words."""
        position = self.trainer.position
        if position.batch:
            return f"in epoch {position.epoch + 1}"
        reason = ", with sigma below the noise" if self._is_below_noise else ""
        return f"after epoch {position.epoch}{reason}"

    def restored(self) -> Doubles:
        """Return the array as the model restores it now, missing values included."""
        if self._restored_at == self._place:
            return self.patches.merged(self._restored)
        trainer = self.trainer
        with self.arithmetic.applied():
            return restore_array(
                self.patches, trainer.model, trainer.estep, self._decode, trainer.device
            )


@torch.inference_mode()
def restore_array(
    patches: Patches,
    model: AnyModel,
    estep: AnyEStep,
    decode: WindowDecoder,
    device: torch.device | str = "cpu",
) -> Doubles:
    """Return the array as a model restores it with the states kept for its windows."""
    rows = np.empty_like(patches.rows)
    for place in torch.arange(len(rows)).split(BLOCK):
        batch = Batch.of(torch.from_numpy(patches.rows)[place].to(device), place)
        rows[place] = decode(model, estep.infer(model, batch, 0), place.numpy())
    return patches.merged(rows)


def score_restored_run(run: Run) -> tuple[dict[str, float], list[str]]:
    """Score a run that restores data it corrupted itself, with a note if it cannot be scored."""
    windows = corrupted_windows(run.config)
    if windows is None:
        return {}, []
    clean = windows.clean()
    if clean.rate is not None and not clean.values.any():
        return {}, ["the clean sound is silent: a restoration of it has no scores"]
    if np.isnan(clean.values).any():
        return {}, ["the clean picture has missing values: a restoration of it has no scores"]
    corrupted = windows.corrupt(clean).values
    patches = windows.cut(corrupted)
    if windows.dataset("", patches).digest != run.info["data_digest"]:
        return {}, ["trained on other data, so it is not scored against the clean reference"]
    last = Run.left(run.path)
    decode = WindowDecoder.of(run.config, patches.grid)
    restored = keep_observed(corrupted, restore_array(patches, last.model, last.estep, decode))
    after = fidelity(clean, restored)
    if clean.rate is None:
        return after, []
    return after | fidelity_gains(fidelity(clean, silenced(corrupted)), after), []


def check_restorable(config: Config, array: Floats, name: str) -> HasWindows:
    """Return the windows to restore; raise `Refusal` if they cannot be restored."""
    windows = restored_windows(config)
    if windows is None:
        raise Refusal(
            "the recipe is not one for restoration; data.kind 'patches' and model.likelihood"
            f" {' or '.join(RESTORING)} expected"
        )
    refuse_unfit(array, name, config.train.sigma)
    return windows


@dataclass(frozen=True)
class Cost:
    """The number of windows of a restoration, and the memory that it takes."""

    rows: int
    dims: int
    memory: int
    """Bytes."""

    @classmethod
    def of(cls, config: Config, windows: HasWindows, array: Floats) -> "Cost":
        """Estimate the cost: three copies of the windows, and the states kept for each."""
        grid = windows.grid(distinct_channels(array).shape)
        bytes_per_row = 3 * 4 * grid.dims
        if getattr(config.estep, "mapped", None) is None:  # otherwise states are in a file
            states = getattr(config.estep, "states", 0)
            bytes_per_row += states * words_of(config.model.latent) * 8
        return cls(grid.rows, grid.dims, grid.rows * bytes_per_row)

    def __str__(self) -> str:
        return f"{self.rows:,} windows of {self.dims} values, {self.memory / 1e6:,.1f} MB"
