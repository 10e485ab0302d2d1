"""Restoring one picture or sound from itself alone: a model of its windows, and what that model
expects of each.

Every value comes back as the mean over the windows that cover it of E_q[mu(z)]; noise is what no
state explains, and a missing value is left out of everything but this last step.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.config import Config
from distvae.data.family import HasWindows
from distvae.data.windows.missing import filled
from distvae.data.windows.patches import Patches, distinct, refuse_constant
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import AnyEStep, AnyModel, Batch, expect
from distvae.models.population import words_of
from distvae.tasks.fidelity import fidelity, fidelity_gains
from distvae.tasks.presets import corrupted_windows, restored_windows
from distvae.train.bits import agree_on_arithmetic
from distvae.train.epoch import Epoch
from distvae.train.run import Run
from distvae.train.session import build_trainer, train_in_folder

Floats = NDArray[np.floating]
BLOCK = 1024
"""Rows looked at together; every distinct state of theirs is decoded once."""

STAGES = "stages.jsonl"
"""The file of a run folder that says where a restoration stood after each epoch."""

TRIED = 1024
"""Rows of a short training that tells the pace."""


@dataclass(frozen=True)
class Stage:
    """Where a restoration stands after an epoch."""

    epoch: int
    """How many are finished."""
    epochs: int
    bound: float
    """Nats per window in the data's own units, under the parameters of the epoch's end; level
    removed or not.
    """
    sigma: float
    """Standard deviation of what the model takes for noise, in the data's units."""
    active: float
    """Latents of a window that are active on average."""
    seconds: float
    """Since training began."""
    close: Mapping[str, float] = field(default_factory=dict)
    """How close the result of now is to a reference, where somebody asked."""

    def metrics(self) -> dict[str, float]:
        """The numbers worth logging."""
        told = {
            name: float(value)
            for name, value in asdict(self).items()
            if name not in ("epochs", "close")
        }
        return told | dict(self.close)


class RunDestination(NamedTuple):
    """A folder that a restoration's run is kept in."""

    folder: Path
    resume: bool = False
    """Go on with the run that is there."""
    force: bool = False
    """Replace the run that is there."""


class Restoration:
    """A model in training on the windows of one array (..., channels), whose missing values are
    NaN.
    """

    def __init__(
        self, config: Config, array: Floats, name: str = "image", kept: RunDestination | None = None
    ) -> None:
        windows = check_restorable(config, array, name)
        self.config, self.kept = config, kept
        self.patches = windows.cut(array)
        self.dataset = windows.dataset(name, self.patches)
        self.arithmetic = agree_on_arithmetic(
            config.train, folder=Folder(kept.folder) if kept and kept.resume else None
        )
        with self.arithmetic.applied():
            self.trainer = build_trainer(config, self.dataset)

    def run(self, stop: Callable[[], object] = lambda: False) -> Iterator[Stage]:
        """Train, and yield where it stands after each epoch."""
        with self.arithmetic.applied():
            for epoch in self._epochs(stop):
                yield self.stage(epoch)

    def _epochs(self, stop: Callable[[], object]) -> Iterator[Epoch]:
        if self.kept is None:
            return self.trainer.run(stop)
        out, resume, force = self.kept
        return train_in_folder(
            self.trainer,
            self.config,
            self.dataset,
            out,
            recipe="restoration",
            resume=resume,
            force=force,
            stop=stop,
        )

    def pace(self) -> float:
        """Seconds that an epoch will take, from a short training aside on a few rows."""
        rows = self.patches.rows[:: -(-len(self.patches.rows) // TRIED)]
        aside = replace(self.dataset, splits=dict.fromkeys(self.dataset.splits, rows))
        with self.arithmetic.applied():
            _, first, second = build_trainer(
                self.config.with_("train", epochs=3, patience=None), aside
            ).run()
        return (second.seconds - first.seconds) * len(self.patches.rows) / len(rows)

    def stage(self, epoch: Epoch) -> Stage:
        """An epoch's record in the data's units."""
        scale, details = self.patches.scale, epoch.details
        observed = float(np.isfinite(self.patches.rows).sum()) / len(self.patches.rows)
        bound = epoch.val_bound - observed * math.log(scale)
        return Stage(
            epoch.epoch,
            epoch.epochs,
            bound,
            scale * details["sigma"],
            details["active"],
            epoch.seconds,
        )

    @property
    def begun(self) -> bool:
        """Whether the model has learned anything yet."""
        return self.trainer.position.epoch > 0 or self.trainer.position.batch > 0

    @property
    def reached(self) -> str:
        """When in training the model is as it is."""
        position = self.trainer.position
        return (
            f"in epoch {position.epoch + 1}" if position.batch else f"after epoch {position.epoch}"
        )

    def restored(self) -> NDArray[np.float64]:
        """The array as the model has it now, missing values included."""
        with self.arithmetic.applied():
            return restore_array(
                self.patches, self.trainer.model, self.trainer.estep, self.trainer.device
            )


@torch.inference_mode()
def restore_array(
    patches: Patches, model: AnyModel, estep: AnyEStep, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """The array as a model has it by the states that are kept for its windows, missing values
    included.
    """
    rows = np.empty_like(patches.rows)
    for place in torch.arange(len(rows)).split(BLOCK):
        q = estep.infer(model, batch_of_windows(patches, place, device), 0)
        rows[place] = expect(q, model.decode).cpu().numpy()
    return patches.merged(rows)


def batch_of_windows(patches: Patches, place: Tensor, device: torch.device | str = "cpu") -> Batch:
    """Some rows, and what was observed of them."""
    x = torch.from_numpy(patches.rows)[place].to(device)
    seen = x.isfinite()
    return Batch(x.where(seen, 0.0), place, None if bool(seen.all()) else seen)


def score_restored_run(run: Run) -> tuple[dict[str, float], list[str]]:
    """How close a run's end comes to what was clean, with a note where that cannot be told."""
    windows = corrupted_windows(run.config)
    if windows is None:
        return {}, []
    clean = windows.clean().levelled()
    if clean.rate is not None and not clean.values.any():
        return {}, ["what was clean is silent: no sound is close to it"]
    given = windows.corrupt(clean).values
    patches = windows.cut(given)
    if windows.dataset("", patches).digest != run.info["data_digest"]:
        return {}, [
            "trained on other data: how close it comes to what was clean is told of that alone"
        ]
    left = Run.left(run.path)
    after = fidelity(clean, filled(given, restore_array(patches, left.model, left.estep)))
    return after | fidelity_gains({} if clean.rate is None else fidelity(clean, given), after), []


def check_restorable(config: Config, array: Floats, name: str) -> HasWindows:
    """Return the windows to restore, or refuse what cannot be restored before anything is
    computed.
    """
    windows = restored_windows(config)
    if windows is None:
        raise Refusal(
            "the recipe is none for restoration; data.kind 'patches' and a Gaussian 'tvae' expected"
        )
    if np.isinf(array).any():
        raise Refusal(f"{name}: holds infinite values; finite ones expected")
    if not np.isfinite(array).any():
        raise Refusal(f"{name}: every value is missing; some observed values expected")
    refuse_constant(array, name)
    return windows


@dataclass(frozen=True)
class Cost:
    """What a restoration takes."""

    rows: int
    dims: int
    memory: int
    """Bytes."""

    @classmethod
    def of(cls, config: Config, windows: HasWindows, array: Floats) -> "Cost":
        """The windows of an array, three copies of which are held, and the states kept for each."""
        grid = windows.grid(distinct(array).shape)
        held = getattr(config.estep, "mapped", None) is None
        kept = held * getattr(config.estep, "states", 0) * words_of(config.model.latent) * 8
        return cls(grid.rows, grid.dims, grid.rows * (3 * 4 * grid.dims + kept))

    def __str__(self) -> str:
        """For a person."""
        return f"{self.rows:,} windows of {self.dims} values, {self.memory / 1e6:,.1f} MB"
