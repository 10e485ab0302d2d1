"""A model, its E-step and some rows, on which laws are checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from distvae.config import Config, from_dict
from distvae.estep import assemble
from distvae.interface import AnyEStep, AnyModel, Batch, Posterior, prepare
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import Noise

ROWS = 6
SHAPE = (1, 3, 4)


@dataclass(frozen=True)
class Case:
    """An untrained model, its E-step, and some rows with values between 0 and 1."""

    config: Config
    model: AnyModel
    estep: AnyEStep
    batch: Batch
    noise: Noise
    shape: tuple[int, ...]

    @classmethod
    def of(cls, settings: Mapping[str, object], shape: tuple[int, ...] = SHAPE) -> "Case":
        """Return a new case for the sections of a configuration, such as {"model": {...}}."""
        config = from_dict(settings)
        model, estep = assemble(config, torch.Size(shape).numel(), shape)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(ROWS, torch.Size(shape).numel(), generator=generator)
        row = torch.arange(ROWS)
        for part in (model, estep):
            prepare(part, [x], Lanes(ROWS, 1).held(), 0)
        return cls(config, model, estep, Batch(x, row), Noise(0, 0, row), shape)

    @property
    def q(self) -> Posterior:
        """The posteriors of the rows."""
        return self.estep(self.model, self.batch)

    def assemble(self, **train: object) -> tuple[AnyModel, AnyEStep]:
        """Return the model and the E-step anew, with other settings of the section `train`."""
        config = self.config.with_("train", **train) if train else self.config
        return assemble(config, self.batch.x.shape[1], self.shape)

    def part(self, rows: slice) -> Batch:
        """Return some of the rows."""
        return Batch(self.batch.x[rows], self.batch.row[rows])


Law = Callable[[Case], None]
