"""Restore one picture or sound with a model that is trained on its windows.

Each restored value is the mean of E_q[mu(z)] over the windows that cover the value. Noise is the
part of the data that no state explains. Training ignores missing values; the restoration fills them
in.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from distvae.config import Config
from distvae.data.windows import (
    Grid,
    Patches,
    PatchFamily,
    distinct_channels,
    keep_observed,
)
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import AnyEStep, AnyModel, Batch, Expects, Posterior, expect
from distvae.models.population import words_of
from distvae.numerics.arrays import Doubles, Floats
from distvae.numerics.noise import RESTORATION, Noise
from distvae.numerics.rows import RowNumbers
from distvae.tasks.presets import RESTORING, corrupted_windows, refuse_unfit, restored_windows
from distvae.tasks.scores import restoration_scores
from distvae.train.loop import Epoch
from distvae.train.run import Run
from distvae.train.run_folder import check_run_folder
from distvae.train.session import RunOptions, agree_on_arithmetic, build_trainer, train_in_folder

BLOCK = 1024
"""Rows that are restored together. Each of their distinct states is decoded once."""
COVER = 256
"""Decoded draws for each restored value, over all windows that cover the value."""

RECIPE = "restoration"
"""The recipe name in the run folder of a restoration."""
STAGES = "stages.jsonl"
"""The file of a run folder with one line for each epoch of a restoration."""


@dataclass(frozen=True)
class Stage:
    """The state of a restoration after an epoch."""

    epoch: int
    """Epochs finished so far."""
    epochs: int
    bound: float
    """Nats per window in the units of the data, under the parameters at the end of the epoch."""
    seconds: float
    """Seconds since training began."""
    sigma: float = math.nan
    """Standard deviation of the noise by the estimate of a TVAE, in the units of the data."""
    active: float = math.nan
    """Mean number of active latents of a window, if latents are binary."""
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
            if self.destination is None:
                epochs = self.trainer.run(stop)
            else:
                out, resume, force = self.destination
                options = RunOptions(RECIPE, resume, force, stop)
                epochs = train_in_folder(self.trainer, self.config, self.dataset, out, options)
            for epoch in epochs:
                self._restored_at = self._place
                yield self.stage(epoch)

    def _restore_windows(self, rows: RowNumbers, q: Posterior) -> None:
        """Restore some windows at the end of an epoch, when validation has decoded their states."""
        self._restored[rows] = self._decode(self.trainer.model, q, rows)

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
        """The noise level that ends training, in the units of the data; or 0."""
        return self.patches.scale * self.trainer.ending.noise

    @property
    def _place(self) -> tuple[int, int]:
        """The number of trained epochs, and of trained batches in the current epoch."""
        position = self.trainer.position
        return position.epoch, position.batch

    @property
    def has_started(self) -> bool:
        """True if the model has been trained on any batch."""
        return self._place > (0, 0)

    @property
    def progress(self) -> str:
        """The progress of training as a sentence."""
        position = self.trainer.position
        if position.batch:
            return f"in epoch {position.epoch + 1}"
        ends = self.trainer.ending.is_below_noise(position)
        reason = ", with sigma below the noise" if ends else ""
        return f"after epoch {position.epoch}{reason}"

    def restored(self) -> Doubles:
        """Return the array restored by the present model, with missing values filled in."""
        if self._restored_at == self._place:
            return self.patches.merged(self._restored)
        trainer = self.trainer
        with self.arithmetic.applied():
            return restore_array(
                self.patches, trainer.model, trainer.estep, self._decode, trainer.device
            )


@dataclass(frozen=True)
class WindowDecoder:
    """Decodes windows from their posteriors."""

    draws: int
    """States drawn for each window; 0 decodes the mean of the posterior."""
    seed: int

    @classmethod
    def of(cls, config: Config, grid: Grid) -> "WindowDecoder":
        """Return the decoder for a configuration."""
        draws = getattr(config.model, "restored", "mean") == "draws"
        covering = math.prod(grid.window) / grid.stride ** len(grid.window)
        return cls(math.ceil(COVER / covering) if draws else 0, config.train.seed)

    def __call__(self, model: AnyModel, q: Posterior, rows: RowNumbers) -> Floats:
        """Return E_q[mu(z)], (B, D), of the windows with the given numbers."""
        if not self.draws or isinstance(q, Expects):
            return expect(q, model.decode).cpu().numpy()
        row = torch.from_numpy(rows).to(q.code.device)
        noises = (Noise(self.seed, RESTORATION - draw, row) for draw in range(self.draws))
        # One at a time: 256 draws of a thousand windows would take much memory.
        total = sum((expect(q, model.decode, 1, noise) for noise in noises), torch.zeros(()))
        return (total / self.draws).cpu().numpy()


@torch.inference_mode()
def restore_array(
    patches: Patches,
    model: AnyModel,
    estep: AnyEStep,
    decode: WindowDecoder,
    device: torch.device | str = "cpu",
) -> Doubles:
    """Return the array restored by a model and by the states of the E-step for each window."""
    rows = np.empty_like(patches.rows)
    for place in torch.arange(len(rows)).split(BLOCK):
        batch = Batch.of(torch.from_numpy(patches.rows)[place].to(device), place)
        rows[place] = decode(model, estep.infer(model, batch, 0), place.numpy())
    return patches.merged(rows)


def score_restored_run(run: Run) -> tuple[dict[str, float], list[str]]:
    """Score a run that corrupted its data first. Return a note if the run cannot be scored."""
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
    return restoration_scores(clean, corrupted, restored), []


def check_restorable(config: Config, array: Floats, name: str) -> PatchFamily:
    """Return the windows of the array; raise `Refusal` if they cannot be restored."""
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
    """The number of windows of a restoration, and the memory that they need."""

    rows: int
    dims: int
    memory: int
    """Bytes."""

    @classmethod
    def of(cls, config: Config, windows: PatchFamily, array: Floats) -> "Cost":
        """Estimate the cost: three copies of the windows, and the states kept for each."""
        grid = windows.grid(distinct_channels(array).shape)
        bytes_per_row = 3 * 4 * grid.dims
        if getattr(config.estep, "mapped", None) is None:  # otherwise a file holds the states
            states = getattr(config.estep, "states", 0)
            bytes_per_row += states * words_of(config.model.latent) * 8
        return cls(grid.rows, grid.dims, grid.rows * bytes_per_row)

    def __str__(self) -> str:
        return f"{self.rows:,} windows of {self.dims} values, {self.memory / 1e6:,.1f} MB"
