"""A trained model in its run folder, and the checks of the arrays that a caller passes to it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distvae.config import Amortised, Config
from distvae.config.schema import Count, whole_number
from distvae.data import Media, media_of, rows_of
from distvae.data.dataset import Array, LazyRows, Rows
from distvae.data.family import family_of
from distvae.estep import assemble
from distvae.estep.store import KeepsPopulations
from distvae.files.paths import require_memory
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import Folder
from distvae.files.untrusted import error_text
from distvae.interface import (
    AnyEStep,
    AnyModel,
    Batch,
    Persistent,
    Posterior,
    Scheduled,
    Searches,
    expect,
)
from distvae.models.likelihoods import support_of
from distvae.models.posteriors import active_code
from distvae.numerics.arrays import plain_array
from distvae.numerics.noise import EVALUATION, Noise, row_keys
from distvae.numerics.rows import divide
from distvae.train.checkpoint import load, load_weights
from distvae.train.cost import NUMBER, DataSize, count_parameters
from distvae.train.run_folder import (
    RunInfo,
    read_config,
    read_epochs,
    read_info,
    refuse_untrained,
    size_of_rows,
)

MAX_RATIO = 100
"""The ratio to the largest training value above which data are assumed to have other units."""
SPECTRUM = "power spectrum"
"""The name of a row of speech data."""


@dataclass(frozen=True)
class InputFormat:
    """The format of rows that a trained model accepts."""

    name: str
    """The name of the array in messages."""
    width: int
    low: float = -math.inf
    high: float = math.inf
    largest: float = math.inf
    """The largest magnitude in the training data."""
    may_be_missing: bool = False
    """Whether values may be NaN."""
    unit: str = "row"
    """The name of one data point."""

    @classmethod
    def of_run(cls, config: Config, width: int, info: RunInfo, name: str = "x") -> "InputFormat":
        """Return the format of the data that a run was trained on.

        Old runs did not record the range of their data.
        """
        low, high = support_of(config.model)
        values = family_of(config.data).values
        if isinstance(config.estep, Amortised) and config.estep.takes_logarithm:
            low = max(low, 0.0)
        if math.isfinite(values.low) or math.isfinite(values.high):
            low, high = values.low, values.high
        largest = max(map(abs, info.get("range", ())), default=math.inf) or math.inf
        unit = values.row_name or str(info.get("unit", "row"))
        return cls(name, width, low, high, largest, values.may_be_missing, unit)

    def check_table(self, array: ArrayLike | Rows | Tensor) -> Rows:
        """Check the shape and type of an array (rows, width). Values are checked when used."""
        rows = self._as_rows(array)
        shape = tuple(rows.shape)
        if len(shape) != 2:
            raise Refusal(
                f"{self.name}: {self._describe(shape)}; an array {self} expected{self._hint(shape)}"
            )
        if shape[1] != self.width:
            raise Refusal(f"{self.name}: rows of {shape[1]:,} values; an array {self} expected")
        if not shape[0]:
            raise Refusal(f"{self.name}: no rows; an array {self} with one or more expected")
        dtype = np.asarray(rows[:1]).dtype
        if dtype.kind not in "fiub":
            raise Refusal(f"{self.name}: holds {dtype}; real numbers expected")
        return rows

    def _as_rows(self, array: ArrayLike | Rows | Tensor) -> Rows:
        """Return rows that are read lazily unchanged, and convert other values to an array."""
        if isinstance(array, LazyRows):
            return array
        try:
            return np.asarray(plain_array(array))
        except ValueError as error:
            raise Refusal(
                f"{self.name}: rows of different lengths; an array {self} expected"
            ) from error

    def __str__(self) -> str:
        """Describe the expected shape."""
        plural = "power spectra" if self.unit == SPECTRUM else f"{self.unit}s"
        return f"({plural}, {self.width})"

    def _describe(self, shape: tuple[int, ...]) -> str:
        if len(shape) != 1:
            return f"{len(shape)} axes, {shape}"
        hint = ", as of a signal" if self.unit == SPECTRUM else ""
        return f"{shape[0]:,} values in a row{hint}"

    def _hint(self, shape: tuple[int, ...]) -> str:
        if len(shape) == 1 and self.unit == SPECTRUM:
            return "; 'distvae encode RUN FOLDER' takes recordings"
        if math.prod(shape) == self.width:
            return f", such as {self.name}.reshape(1, -1)"
        if len(shape) > 2 and math.prod(shape[1:]) == self.width:
            return f", such as {self.name}.reshape(len({self.name}), -1)"
        return ""

    def check_values(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return some rows, or raise `Refusal` if their values do not fit the training data."""
        if not self.may_be_missing and np.isnan(block).any():
            raise Refusal(
                f"{self.name}: holds NaN; finite values expected: in data of this kind none is"
                " missing"
            )
        lowest = float(np.fmin.reduce(block, axis=None, initial=math.nan))
        highest = float(np.fmax.reduce(block, axis=None, initial=math.nan))
        for value in (lowest, highest):
            self._check_value(value)
        return block

    def _check_value(self, value: float) -> None:
        if math.isinf(value):
            raise Refusal(
                f"{self.name}: holds an infinite value, or one beyond float32; finite ones expected"
            )
        if value < self.low or value > self.high:
            expected = f"at least {self.low:g}"
            if self.high < math.inf:
                expected += f" and at most {self.high:g}"
            raise Refusal(f"{self.name}: holds {value:g}; {expected} expected, as in training")
        if abs(value) > MAX_RATIO * self.largest:
            ratio = f"{abs(value) / self.largest:,.0f} times the largest value of training"
            raise Refusal(
                f"{self.name}: holds {value:g}, {ratio}; values in the same units expected"
            )


BLOCK = 4096  # rows that are encoded or decoded at once
VALUES = 2**22  # the most values of these rows, because convolutions make several of each value


class Run:
    """A trained model, its configuration, and the facts about its training."""

    def __init__(self, path: Path, config: Config, info: RunInfo, which: str) -> None:
        self.path, self.config, self.info = path, config, info
        self.dims, self.shape = size_of_rows(path, info)
        tensors, self.facts = load(path, which)
        refuse_too_few(path, config, DataSize(1, self.dims, self.shape), tensors)
        self.model, self.estep = assemble(config, self.dims, self.shape)
        load_stored_weights(path, self.model.eval(), self.estep.eval(), tensors)
        if isinstance(self.model, Scheduled):
            self.model.at(math.inf)

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    @classmethod
    def open(cls, path: Path | str, which: str = "best") -> "Run":
        """Open the run in a folder, with its best or its last weights."""
        path = Path(path)
        info = read_info(path)
        folder = Folder(path)
        if which == "last" and folder.has("best.json") and not folder.has("last.json"):
            raise Refusal(
                f"{path}: has only its best weights, as runs fetched from MLflow do: the last"
                " state of training and the populations kept for its data (last.json) are not"
                " logged; the folder it was trained in expected"
            )
        refuse_untrained(path, which)
        return cls(path, read_config(path, info), info, which)

    @classmethod
    def left(cls, path: Path | str) -> "Run":
        """Open the last state of a run: the last weights, and the populations of its rows."""
        run = cls.open(path, "last")
        if isinstance(run.estep, KeepsPopulations):
            lanes = divide(run.info["rows"]["train"], run.config.train.batch)
            run.estep.allocate(lanes.held())
        if isinstance(run.estep, Persistent):
            run.estep.load(path, run.facts["populations"])
        return run

    @property
    def recipe(self) -> str:
        """The name of the run's recipe."""
        return str(self.info["recipe"])

    def posterior(self, x: Tensor, row: Tensor | None = None) -> Posterior:
        """Return posteriors of new rows under the trained model.

        The draws of a search are keyed by `row`. By default the key is a hash of the row's values,
        so that a code does not depend on the order of rows.
        """
        if row is None:
            draws = isinstance(self.estep, Searches)
            row = row_keys(x.float()) if draws else torch.arange(len(x))
        return self.estep.infer(self.model, Batch.of(x, row))

    @torch.no_grad()
    def encode(
        self, x: Media, name: str = "x", *, active: bool = False, bins_first: bool = False
    ) -> Array:
        """Return the codes of new data: (N, D) -> (N, H). With `active`, values that are not active
        are zero.

        `x` may also be the path of a file or folder, a list of paths, a signal, or images, of the
        kind that the run was trained on. Data of another kind are refused under the name `name`.
        With `bins_first`, frames are the last axis, as in librosa's spectra: (D, N) -> (H, N).
        """
        if bins_first:
            return self.encode(np.asanyarray(x).T, name, active=active).T
        expected = InputFormat.of_run(self.config, self.dims, self.info, name)
        rows = self._checked(x, expected)
        code = active_code if active else attrgetter("code")
        return self.in_blocks(rows, lambda block: code(self.posterior(block)), expected)

    @torch.no_grad()
    def reconstruct(self, x: Media, name: str = "x") -> Array:
        """Return E[x | z] under the posterior of new data, as data of the same kind.

        A sound is returned as a signal with the phase of the input, and a picture as an image.
        """
        expected = InputFormat.of_run(self.config, self.dims, self.info, name)
        rows = self._checked(x, expected)
        decoded = self.in_blocks(
            rows, lambda block: expect(self.posterior(block), self.model.decode), expected
        )
        return media_of(self.config.data, decoded, x, self.shape)

    @torch.no_grad()
    def decode(self, z: ArrayLike | Tensor, *, bins_first: bool = False) -> Array:
        """Return E[x | z]: (N, H) -> (N, D), or (H, N) -> (D, N) with `bins_first`."""
        if bins_first:
            return self.decode(np.asarray(z).T).T
        expected = InputFormat("z", self.model.code_size, unit="code")
        return self.in_blocks(
            expected.check_table(z), lambda block: self.model.decode(block[:, None])[:, 0], expected
        )

    def sample(self, count: int, seed: int = 0) -> Array:
        """Return E[x | z] (count, D) for the draws of `sample_codes` from the prior."""
        return self.decode(self.sample_codes(count, seed))

    @torch.no_grad()
    def sample_codes(self, count: int, seed: int = 0) -> Array:
        """Return codes (count, H) drawn from the prior."""
        count = whole_number("count", Count, count)
        needed = count * self.model.code_size * NUMBER
        require_memory("count", needed, f"{count:,} codes", "fewer")
        rows = torch.arange(count)
        noise = Noise(whole_number("seed", int, seed), EVALUATION, rows)
        states: Array = self.model.prior(noise, self.estep)[:, 0].numpy()
        return states

    def _checked(self, x: Media, expected: InputFormat) -> Rows:
        """Convert new data to rows, and check them. Masked values are missing."""
        digest = str(self.info["data_digest"])
        return expected.check_table(rows_of(self.config.data, x, self.shape, digest))

    def epochs(self) -> list[dict[str, float]]:
        """Return the records of the run's epochs."""
        return read_epochs(self.path)

    def in_blocks(
        self,
        data: Rows | Tensor,
        f: Callable[[Tensor], Tensor],
        expected: InputFormat | None = None,
    ) -> Array:
        """Check rows, apply a function to them in blocks, and return its values."""
        rows = min(BLOCK, max(1, VALUES // self.dims))
        blocks = (_narrow(data[i : i + rows]) for i in range(0, len(data), rows))
        checked = blocks if expected is None else map(expected.check_values, blocks)
        return np.concatenate([f(torch.as_tensor(block)).numpy() for block in checked])


def _narrow(rows: ArrayLike) -> Array:
    with np.errstate(over="ignore"):  # infinite results are refused
        return np.array(rows, np.float32, order="C")


def refuse_too_few(
    place: Path, config: Config, data: DataSize, tensors: Mapping[str, Tensor]
) -> None:
    """Refuse weights with fewer values than the configured model has, before it is allocated.

    A damaged folder therefore cannot make this process allocate a huge model.
    """
    needed, found = count_parameters(config, data), sum(map(Tensor.numel, tensors.values()))
    if found < needed:
        raise Refusal(
            f"{place}: weights of {found:,} values; {shown(needed)} expected by its config.yaml and"
            " run.json"
        )


def load_stored_weights(
    place: Path, model: AnyModel, estep: AnyEStep, tensors: dict[str, Tensor]
) -> None:
    """Set the parameters and buffers of both parts. Refuse weights of another model."""
    try:
        load_weights(model, estep, tensors)
    except RuntimeError as error:  # torch raises it for other names and sizes
        raise Refusal(
            f"{place}: weights of another model ({error_text(error)}); those of its config.yaml"
            " and run.json expected"
        ) from error
