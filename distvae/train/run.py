"""Open a run folder: its configuration, its records of epochs, and its trained model."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from distvae.config import Config, from_stored
from distvae.config.schema import check_value, whole_number
from distvae.config.values import Count, Widths
from distvae.data.dataset import Array, Rows
from distvae.data.media import Media, media_of, rows_of
from distvae.estep import assemble
from distvae.estep.store import KeepsPopulations
from distvae.files.memory import require_memory
from distvae.files.plain import Tree
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import Folder
from distvae.files.untrusted import parse_json, parse_yaml, refuse_strange_entries
from distvae.interface import Batch, Persistent, Posterior, Scheduled, expect
from distvae.numerics.noise import EVALUATION, Noise, row_keys
from distvae.numerics.rows import divide
from distvae.train.checkpoint import Place, load, read_document, read_manifest
from distvae.train.cost import NUMBER, DataSize
from distvae.train.documents import RunInfo
from distvae.train.inputs import InputFormat
from distvae.train.weights import load_stored_weights, refuse_too_few

EPOCHS = "epochs.jsonl"
"""The file of a run folder with the record of each epoch, one record per line."""
BLOCK = 4096  # rows that are encoded or decoded at once
VALUES = 2**22  # the most values of these rows, because convolutions make several of each value
FACTS = {
    **{"recipe": str, "data": str, "data_digest": str, "unit": str},
    **{"rows": dict, "versions": dict},
}
"""The required facts of run.json, and their types."""


def refuse_untrained(path: Path, which: str = "best") -> None:
    """Raise `Refusal` if a run folder has no weights."""
    if not Folder(path).has(f"{which}.json"):
        raise Refusal(
            f"{path}: no {which}.json in it: no epoch was finished, or the file was removed;"
            " --resume writes it"
        )


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
        row = row_keys(x.float()) if row is None else row
        return self.estep.infer(self.model, Batch.of(x, row))

    @torch.no_grad()
    def encode(self, x: Media, name: str = "x", *, bins_first: bool = False) -> Array:
        """Return the codes of new data: (N, D) -> (N, H).

        `x` may also be the path of a file or folder, a list of paths, a signal, or images, of the
        kind that the run was trained on. Data of another kind are refused under the name `name`.
        With `bins_first`, frames are the last axis, as in librosa's spectra: (D, N) -> (H, N).
        """
        if bins_first:
            return self.encode(np.asanyarray(x).T, name).T
        expected = InputFormat.of_run(self.config, self.dims, self.info, name)
        rows = self._checked(x, expected)
        return self.in_blocks(rows, lambda block: self.posterior(block).code, expected)

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


def size_of_rows(place: Path, info: RunInfo) -> tuple[int, tuple[int, ...]]:
    """Return the number of values of a row, and its shape if rows are images."""
    file = f"{place}/run.json"
    dims: int = check_value(f"{file}: dims", Count, info.get("dims"))
    shape: tuple[int, ...] = check_value(f"{file}: shape", Widths, info.get("shape", ()))
    if shape and math.prod(shape) != dims:
        raise Refusal(
            f"{file}: shape: {shown(list(shape))} has {shown(math.prod(shape))} values, and dims is"
            f" {shown(dims)}; altered or damaged"
        )
    return dims, shape


def read_info(place: Place) -> RunInfo:
    """Return the facts in run.json, or refuse a folder that is not a run folder."""
    folder = Folder.of(place)
    info = refuse_other_folder(folder)
    for name, kind in FACTS.items():
        if not isinstance(info.get(name), kind):
            raise Refusal(
                f"{folder}/run.json: altered or damaged: '{name}' is not as it was written"
            )
    return cast(RunInfo, info)


def refuse_other_folder(folder: Folder) -> Tree:
    """Refuse a folder that is not a run folder, or that links to files outside of it.

    Return the content of its run.json, without checking its facts.
    """
    if not folder.remote:
        refuse_strange_entries(Path(folder.path))
    if folder.has("sweep.json"):
        raise Refusal(
            f"{folder}: a sweep; one of the runs in its folder trials, or best:METRIC@SWEEP,"
            " expected"
        )
    if not folder.has("run.json"):
        raise Refusal(
            f"{folder}: not a run folder (no run.json in it); one that 'distvae train' made is"
            " expected"
        )
    return read_document(folder, "run.json")


def read_config(place: Place, info: RunInfo) -> Config:
    """Return the configuration of a run, or refuse a file that was altered."""
    folder = Folder.of(place)
    file = f"{folder}/config.yaml"
    if not folder.has("config.yaml"):
        raise Refusal(f"{file}: missing; a run folder keeps its configuration there")
    text = folder.read("config.yaml")
    # Another process may be replacing the file, so the previous digest is valid too.
    known = (
        info.get("config_sha256"),
        info.get("config_sha256_before"),
    )
    if hashlib.sha256(text).hexdigest() not in known:
        raise Refusal(
            f"{file}: altered since the run was started; begin a new run from it with 'distvae"
            f" train {file}'"
        )
    tree = parse_yaml(text, file)
    if not isinstance(tree, dict):
        raise Refusal(f"{file}: holds no mapping; the configuration that training wrote expected")
    return from_stored(tree)


def read_epochs(place: Place, first: int = 1) -> list[dict[str, float]]:
    """Return the records in epochs.jsonl from line `first` on, or [] without a file."""
    return read_records(place, EPOCHS, ("epoch", "val_objective", "val_bound"), first)


def best_epoch(place: Place, epochs: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the record of the epoch with the run's best weights.

    If this record is missing, as after a crash, return the record with the largest objective.
    """
    folder = Folder.of(place)
    if folder.has("best.json"):
        kept = read_manifest(folder, "best.json")["facts"]["epoch"]
        if found := [record for record in epochs if record["epoch"] == kept]:
            return found[-1]
    return max(epochs, key=lambda record: record["val_objective"])


def read_records(
    place: Place, name: str, fields: tuple[str, ...] = ("epoch",), first: int = 1
) -> list[Tree]:
    """Return the JSON objects of a file, one object per line, from line `first` on.

    Each object must have the fields. A line that a crash cut short is left out.
    """
    folder = Folder.of(place)
    lines = folder.read(name).splitlines(keepends=True) if folder.has(name) else []
    return [
        _record(f"{folder}/{name}", n, line, fields)
        for n, line in enumerate(lines[first - 1 :], first)
        if line.endswith(b"\n")
    ]


def _record(file: str, number: int, line: bytes, fields: tuple[str, ...]) -> Tree:
    record = parse_json(line, f"{file}: line {number}")
    for name in fields:
        if name not in record:
            raise Refusal(f"{file}: altered or damaged in line {number}: no {name}")
    return record
