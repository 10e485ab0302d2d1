"""Stores of populations: the bit-packed states of every row, by row number."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor, nn

from distvae.files.arrow import rows_column
from distvae.files.memory import gigabytes
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.rows import Bands, HeldRows, Lanes
from distvae.system.disk import reserve_space
from distvae.system.memory import available_memory

VERSION = 2
PART = 4096  # rows written to a file at a time
DRAWN = 1024  # rows whose initial states are drawn at a time

Draw = Callable[[Tensor], Tensor]
"""A function that draws the initial words (B, S, W) of rows."""


class Layout(TypedDict):
    """The rows whose populations a file holds: the rows of worker `rank` of `size`, when `rows`
    rows are divided into `lanes` lanes or bands.
    """

    rows: int
    lanes: int
    bands: NotRequired[bool]
    """True if the lanes are bands of consecutive rows."""
    rank: int
    size: int
    states: int
    words: int


class PopulationFile(TypedDict):
    """A checkpoint's entry for a file of populations."""

    file: str
    sha256: str
    bytes: int
    layout: Layout


@runtime_checkable
class KeepsPopulations(Protocol):
    """An E-step that keeps its states in a store of populations."""

    def populations(self) -> "HeldPopulations":
        """Return the store."""

    def allocate(self, held: HeldRows) -> None:
        """Allocate memory for the states of these rows."""


Places = Tensor | slice
"""Positions among the rows that a worker holds."""


class HeldPopulations(nn.Module):
    """Base class of stores: the populations of the rows that one worker holds."""

    def __init__(self, held: HeldRows, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.held, self.shape = held, shape

    def read(self, places: Places) -> Tensor:
        """Return the words (B, S, W) at these places."""
        raise NotImplementedError

    def write(self, places: Places, words: Tensor) -> None:
        """Replace the words at these places."""
        raise NotImplementedError

    def initialise(self, draw: Draw) -> None:
        """Fill the store with the initial states of all rows."""
        for part in parts_of(len(self.held), DRAWN):
            self.write(part, draw(torch.from_numpy(self.held.part(part))))

    def get(self, rows: Tensor) -> Tensor:
        """Return the words (B, S, W) of these rows."""
        return self.read(self.held.index(rows))

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows."""
        self.write(self.held.index(rows), words)

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Write all rows to a new Arrow file; return its entry for the checkpoint."""
        import pyarrow as pa

        layout = self.layout()
        length = layout["states"] * layout["words"]
        schema = pa.schema({"states": pa.list_(pa.int64(), length)}, _metadata(layout))
        # Each save uses a new name, so that earlier files stay valid if this save is cut short.
        token = secrets.token_hex(4)
        name = f"population-{generation}-{layout['rank']}of{layout['size']}-{token}.arrow"
        with Folder(folder).create(name) as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in parts_of(self.shape[0], PART):
                column = rows_column(self.read(part).cpu().numpy(), length)
                writer.write_batch(pa.record_batch([column], schema=schema))
        return [
            {"file": name, "sha256": sink.digest.hexdigest(), "bytes": sink.count, "layout": layout}
        ]

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Fill the store from those files of a checkpoint that contain rows of this worker."""
        place, missing = Folder(folder), torch.ones(self.shape[0], dtype=torch.bool)
        for kept in files:
            if self.held.overlaps(_held(self._fitting(kept))):
                self._fill(place, kept, missing)
        if missing.any():
            raise Refusal(
                f"{place.path}: {int(missing.sum())} rows are in no file that the checkpoint names"
            )

    def layout(self) -> Layout:
        """Return the layout of this store."""
        lanes, (_, states, width) = self.held.lanes, self.shape
        layout: Layout = {
            "rows": lanes.rows,
            "lanes": lanes.count,
            "rank": self.held.rank,
            "size": self.held.size,
            "states": states,
            "words": width,
        }
        return {**layout, "bands": True} if isinstance(lanes, Bands) else layout

    def _fitting(self, kept: PopulationFile) -> Layout:
        """Return the layout of a file, or refuse a file of other data or another model."""
        layout, expected = kept["layout"], self.layout()
        for name in ("rows", "states", "words"):
            if layout[name] != expected[name]:
                raise Refusal(
                    f"{kept['file']}: of other data or another model: {layout[name]} {name};"
                    f" {expected[name]} expected"
                )
        return layout

    def _fill(self, folder: Folder, kept: PopulationFile, missing: Tensor) -> None:
        """Copy the rows of this worker from a file, batch by batch."""
        import pyarrow as pa

        with (
            folder.open_verified(kept["file"], kept["sha256"]) as file,
            pa.ipc.open_file(file) as reader,
        ):
            _check_metadata(kept, reader.schema.metadata)
            theirs, start = _held(kept["layout"]), 0
            for i in range(reader.num_record_batches):
                column = reader.get_batch(i).column(0)
                in_batch = theirs.part(slice(start, start + len(column)))
                start += len(column)
                is_held = self.held.contains(in_batch)
                held_rows = torch.from_numpy(in_batch[is_held])
                flat = column.flatten().to_numpy(zero_copy_only=True)
                values = flat.reshape(-1, *self.shape[1:])
                self.put(held_rows, torch.from_numpy(values[is_held]))
                missing[self.held.index(held_rows)] = False


class LocalStore(HeldPopulations):
    """The populations of one worker as words: in memory, which follows the model's device, or in a
    mapped file, which stays on the host.
    """

    words: Tensor

    def __init__(self, words: Tensor, held: HeldRows, stays: bool = False) -> None:
        rows, states, width = words.shape
        super().__init__(held, (rows, states, width))
        if stays:
            self.words = words
        else:
            self.register_buffer("words", words, persistent=False)

    def read(self, places: Places) -> Tensor:
        """Return the words (B, S, W) at these places. A slice returns a view."""
        return self.words[self._beside(places)]

    def write(self, places: Places, words: Tensor) -> None:
        """Replace the words at these places."""
        self.words[self._beside(places)] = words.to(self.words.device)

    def _beside(self, places: Places) -> Places:
        if isinstance(places, slice):
            return places
        return places.to(self.words.device, non_blocking=True)


def parts_of(rows: int, count: int) -> Iterator[slice]:
    """Yield consecutive slices of `count` rows."""
    for first in range(0, rows, count):
        yield slice(first, min(first + count, rows))


def _held(layout: Layout) -> HeldRows:
    kind = Bands if layout.get("bands") else Lanes
    return kind(layout["rows"], layout["lanes"]).held(layout["rank"], layout["size"])


def _metadata(layout: Layout) -> dict[str, str]:
    """Return the metadata of an Arrow file."""
    return {name: str(value) for name, value in ({"version": VERSION} | layout).items()}


def _check_metadata(kept: PopulationFile, metadata: dict[bytes, bytes]) -> None:
    """Refuse a file whose metadata differs from its entry in the checkpoint."""
    found = {key.decode(): value.decode() for key, value in metadata.items()}
    if int(found["version"]) != VERSION:
        raise Refusal(
            f"{kept['file']}: of format {found['version']}, and this distvae reads {VERSION}; use"
            " the one that wrote it"
        )
    if found != _metadata(kept["layout"]):
        raise Refusal(f"{kept['file']}: holds other rows than the checkpoint says")


def empty_populations(rows: int, states: int, words: int, mapped: str | None = None) -> Tensor:
    """Return an uninitialised tensor (rows, states, words), in memory or in an unnamed file in the
    folder `mapped`.
    """
    if mapped is None:
        check_populations_fit(available_memory(), rows, states, words)
        return torch.empty(rows, states, words, dtype=torch.int64)
    needed = 8 * rows * states * words
    try:
        with tempfile.NamedTemporaryFile(dir=mapped, prefix="distvae-population-") as file:
            reserve_space(file.fileno(), needed)
            values = torch.from_file(file.name, shared=True, size=needed // 8, dtype=torch.int64)
    except OSError as error:
        raise Refusal(
            f"estep.mapped: {mapped}: {error.strerror}; a folder that can be written into expected,"
            f" with {gigabytes(needed)} of room"
        ) from error
    return values.view(rows, states, words)


def check_populations_fit(free: int, rows: int, states: int, words: int) -> None:
    """Refuse populations that need more than `free` bytes of memory."""
    needed = 8 * rows * states * words
    if needed > free:
        raise Refusal(
            f"estep.states: {states} states for {rows:,} rows need {gigabytes(needed)}, and"
            f" {gigabytes(free)} of memory are free; fewer expected, or estep.mapped=FOLDER on a"
            " large disk"
        )
