"""Stores of populations: bit-packed states of every row, by row number."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.files.memory import available_memory, gigabytes
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import Persistent
from distvae.numerics.lanes import HeldRows, Lanes

VERSION = 2
PART = 65536  # rows written at a time
DRAWN = 1024  # rows whose first states are drawn at a time

UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems that cannot reserve space."""

Draw = Callable[[Tensor], Tensor]
"""The first words (B, S, W) of these rows."""


class Layout(TypedDict):
    """Which populations a file holds, in the order of their rows: part `rank` of `size` of so many
    rows in lanes.
    """

    rows: int
    lanes: int
    rank: int
    size: int
    states: int
    words: int


class PopulationFile(TypedDict):
    """A file of populations, as a checkpoint names it."""

    file: str
    sha256: str
    bytes: int
    layout: Layout


class PopulationStore(Persistent[PopulationFile], Protocol):
    """A store of the states that are kept for every row, which travel in blocks.

    Row numbers are on the host. Words are put from any device, and returned on that of the store.
    """

    def initialise(self, draw: Draw) -> None:
        """Draw the first states of all rows."""

    def get(self, rows: Tensor) -> Tensor:
        """Return the words (B, S, W) of these rows."""

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""


@runtime_checkable
class KeepsPopulations(Protocol):
    """An E-step that keeps its states in a store of populations."""

    def use_store(self, store: PopulationStore) -> None:
        """Keep the populations in a store that other workers see."""

    def allocate(self, held: HeldRows) -> None:
        """Reserve memory for the states of these rows, unless a store was given."""


class LocalStore(nn.Module):
    """The rows of one holder in memory, which goes to the model's device, or in a mapped file,
    which stays.
    """

    words: Tensor

    def __init__(self, words: Tensor, held: HeldRows, stays: bool = False) -> None:
        super().__init__()
        self.held = held
        if stays:
            self.words = words
        else:
            self.register_buffer("words", words, persistent=False)

    def initialise(self, draw: Draw) -> None:
        """Fill it with the first states of all rows."""
        rows = torch.from_numpy(self.held.rows())
        for first in range(0, len(rows), DRAWN):
            self.words[first : first + DRAWN] = draw(rows[first : first + DRAWN])

    def get(self, rows: Tensor) -> Tensor:
        """Return the words (B, S, W) of these rows."""
        return self.words[self._index(rows)]

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""
        self.words[self._index(rows)] = words.to(self.words.device)

    def _index(self, rows: Tensor) -> Tensor:
        """Return where each of these rows stands, beside the words."""
        return self.held.index(rows).to(self.words.device, non_blocking=True)

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Write all rows to a new Arrow file; return how a checkpoint names it."""
        import pyarrow as pa

        layout = self.layout()
        length = layout["states"] * layout["words"]
        schema = pa.schema({"states": pa.list_(pa.int64(), length)}, _metadata(layout))
        # A new name each time: earlier files stay valid if this one is cut short.
        token = secrets.token_hex(4)
        name = f"population-{generation}-{layout['rank']}of{layout['size']}-{token}.arrow"
        with Folder(folder).create(name) as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in self.words.split(PART):
                values = pa.array(part.cpu().numpy().ravel())
                column = pa.FixedSizeListArray.from_arrays(values, length)
                writer.write_batch(pa.record_batch([column], schema=schema))
        return [
            {"file": name, "sha256": sink.digest.hexdigest(), "bytes": sink.count, "layout": layout}
        ]

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Fill it from the files of a generation that hold rows of its own."""
        place, missing = Folder(folder), torch.ones(len(self.words), dtype=torch.bool)
        for kept in files:
            if _overlap(self.held, _held(self._fitting(kept))):
                self._fill(place, kept, missing)
        if missing.any():
            raise Refusal(
                f"{place.path}: {int(missing.sum())} rows are in no file that the checkpoint names"
            )

    def layout(self) -> Layout:
        """Return which populations it holds."""
        lanes, (_, states, width) = self.held.lanes, self.words.shape
        return {
            "rows": lanes.rows,
            "lanes": lanes.count,
            "rank": self.held.rank,
            "size": self.held.size,
            "states": states,
            "words": width,
        }

    def _fitting(self, kept: PopulationFile) -> Layout:
        """Return the layout of a file, or refuse states of another kind."""
        layout, expected = kept["layout"], self.layout()
        for name in ("rows", "states", "words"):
            if layout[name] != expected[name]:
                raise Refusal(
                    f"{kept['file']}: of other data or another model: {layout[name]} {name};"
                    f" {expected[name]} expected"
                )
        return layout

    def _fill(self, folder: Folder, kept: PopulationFile, missing: Tensor) -> None:
        """Take the rows of its own from a file, batch after batch."""
        import pyarrow as pa

        with (
            folder.open_verified(kept["file"], kept["sha256"]) as file,
            pa.ipc.open_file(file) as reader,
        ):
            _check_metadata(kept, reader.schema.metadata)
            rows = _held(kept["layout"]).rows()
            for i in range(reader.num_record_batches):
                column = reader.get_batch(i).column(0)
                in_batch, rows = rows[: len(column)], rows[len(column) :]
                is_held = self.held.contains(in_batch)
                held_rows = torch.from_numpy(in_batch[is_held])
                flat = column.flatten().to_numpy(zero_copy_only=True)
                values = flat.reshape(-1, *self.words.shape[1:])
                self.put(held_rows, torch.from_numpy(values[is_held]))
                missing[self.held.index(held_rows)] = False


def _held(layout: Layout) -> HeldRows:
    return Lanes(layout["rows"], layout["lanes"]).held(layout["rank"], layout["size"])


def _overlap(one: HeldRows, other: HeldRows) -> bool:
    """Return whether two parts of the same rows have any in common."""
    lanes, others = (range(held.rank, held.lanes.count, held.size) for held in (one, other))
    return one.lanes != other.lanes or not set(lanes).isdisjoint(others)


def _metadata(layout: Layout) -> dict[str, str]:
    """Return the metadata of a file."""
    return {name: str(value) for name, value in ({"version": VERSION} | layout).items()}


def _check_metadata(kept: PopulationFile, metadata: dict[bytes, bytes]) -> None:
    """Refuse a file that is not what the checkpoint says it is."""
    found = {key.decode(): value.decode() for key, value in metadata.items()}
    if int(found["version"]) != VERSION:
        raise Refusal(
            f"{kept['file']}: of format {found['version']}, and this distvae reads {VERSION}; use"
            " the one that wrote it"
        )
    if found != _metadata(kept["layout"]):
        raise Refusal(f"{kept['file']}: holds other rows than the checkpoint says")


def empty_populations(rows: int, states: int, words: int, mapped: str | None = None) -> Tensor:
    """Return an empty tensor (rows, states, words), in memory or in an unnamed file in a folder."""
    if mapped is None:
        check_populations_fit(available_memory(), rows, states, words)
        return torch.empty(rows, states, words, dtype=torch.int64)
    needed = 8 * rows * states * words
    try:
        with tempfile.NamedTemporaryFile(dir=mapped, prefix="distvae-population-") as file:
            _reserve(file.fileno(), needed, shutil.disk_usage(mapped).free)
            values = torch.from_file(file.name, shared=True, size=needed // 8, dtype=torch.int64)
    except OSError as error:
        raise Refusal(
            f"estep.mapped: {mapped}: {error.strerror}; a folder that can be written into expected,"
            f" with {gigabytes(needed)} of room"
        ) from error
    return values.view(rows, states, words)


def check_populations_fit(free: int, rows: int, states: int, words: int) -> None:
    """Refuse states for which so many bytes of memory are too few."""
    needed = 8 * rows * states * words
    if needed > free:
        raise Refusal(
            f"estep.states: {states} states for {rows:,} rows need {gigabytes(needed)}, and"
            f" {gigabytes(free)} of memory are free; fewer expected, or estep.mapped=FOLDER on a"
            " large disk"
        )


def _reserve(file: int, needed: int, free: int) -> None:
    """Make a file so long, and reserve its space on the disk.

    A process that maps a file is killed if the disk is full later. Where a system cannot reserve
    space, only the space at the start is checked.
    """
    if needed > free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.truncate(file, needed)
    with suppress(AttributeError):  # macOS has no such call
        try:
            os.posix_fallocate(file, 0, needed)
        except OSError as error:
            if error.errno not in UNABLE:
                raise
