"""Stores of populations: the bit-packed states of every row, by row number."""

import math
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distvae.files.paths import gigabytes
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder, rows_column
from distvae.models.population import BITS, words_of
from distvae.numerics.rows import Bands, HeldRows, Lanes
from distvae.system import available_memory, reserve_space

if TYPE_CHECKING:
    import pyarrow as pa

WORDS, LISTS = 2, 3
"""The formats of a file: states as words, and as lists of active bits."""
MAX_LATENT = 2**16
"""The largest number of latents for which two bytes hold the place of a bit."""
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
        self.latent = BITS * shape[2]
        """The number of bits of a state that may be active."""

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
        as_lists = may_be_compact(layout["words"])
        kind = pa.large_binary() if as_lists else pa.list_(pa.int64(), length)
        schema = pa.schema({"states": kind}, _metadata(layout, LISTS if as_lists else WORDS))
        # Each save uses a new name, so that earlier files stay valid if this save is cut short.
        token = secrets.token_hex(4)
        name = f"population-{generation}-{layout['rank']}of{layout['size']}-{token}.arrow"
        with Folder(folder).create(name) as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in parts_of(self.shape[0], PART):
                if as_lists:
                    lists, ends = _lists_of(self, part)
                    places = pa.py_buffer(np.concatenate([[0], ends]))
                    buffers = [None, places, pa.py_buffer(lists)]
                    column = pa.Array.from_buffers(kind, len(ends), buffers)
                else:
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
                values = _words_in(kept["file"], column, self.shape)
                refuse_strange_bits(kept["file"], values, self.latent)
                self.put(held_rows, values[torch.from_numpy(is_held)])
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


class CompactStore(HeldPopulations):
    """The populations of one worker, as lists of active bits in host memory."""

    def __init__(self, states: int, width: int, held: HeldRows) -> None:
        count = len(held)
        super().__init__(held, (count, states, width))
        self.written = [bytes(states)] * count  # states without active bits

    def read(self, places: Places) -> Tensor:
        """Return the words (B, S, W) at these places."""
        if isinstance(places, slice):
            rows = self.written[places]
        else:
            rows = [self.written[place] for place in places.tolist()]
        return _from_lists(b"".join(rows), len(rows), self.shape)

    def write(self, places: Places, words: Tensor) -> None:
        """Replace the words at these places."""
        written, ends = _as_lists(words)
        if isinstance(places, slice):
            places = torch.arange(len(self.written))[places]
        start = 0
        for place, end in zip(places.tolist(), ends.tolist(), strict=True):
            self.written[place] = written[start:end].tobytes()
            start = end


def _as_lists(words: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Encode words (B, S, W) as lists of active bits; return them and the end of each row."""
    from distvae.estep import kernels

    count, states, width = words.shape
    ends = np.empty(count, np.int64)
    written = np.empty(count * states * (1 + 8 * width), np.uint8)
    kernels.write_states(words.cpu().contiguous().numpy(), ends, written)
    return written, ends


def _from_lists(lists: bytes, rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Decode lists of active bits to words (B, S, W)."""
    from distvae.estep import kernels

    words = torch.empty(rows, *shape[1:], dtype=torch.int64)
    if not kernels.read_states(np.frombuffer(lists, np.uint8), words.numpy()):
        raise Refusal("the lists of active bits are cut short, or name bits that no state has")
    return words


def _lists_of(store: HeldPopulations, part: slice) -> tuple[bytes, NDArray[np.int64]]:
    """Return the states of a slice of rows as lists of active bits, and the end of each row."""
    if isinstance(store, CompactStore):
        rows = store.written[part]
        return b"".join(rows), np.cumsum([len(row) for row in rows], dtype=np.int64)
    written, ends = _as_lists(store.read(part))
    return written[: ends[-1]].tobytes(), ends


def _words_in(file: str, column: "pa.Array", shape: tuple[int, int, int]) -> Tensor:
    """Return the words (B, S, W) in a column of a file."""
    import pyarrow as pa

    if not pa.types.is_large_binary(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return torch.from_numpy(flat.reshape(-1, *shape[1:]).copy())
    try:
        rows = [row or b"" for row in column.to_pylist()]
        return _from_lists(b"".join(rows), len(column), shape)
    except Refusal as error:
        raise Refusal(f"{file}: {error}; another checkpoint expected (--previous)") from error


def may_be_compact(width: int) -> bool:
    """Return whether states of `width` words can be stored, and are smaller, as lists of bits."""
    return 1 < width <= MAX_LATENT // 64


def packed(store: HeldPopulations, part: slice) -> bytes:
    """Return the states of a slice of rows as lists of active bits, or as words if lists would not
    be smaller.
    """
    if may_be_compact(store.shape[2]):
        return _lists_of(store, part)[0]
    return store.read(part).cpu().numpy().tobytes()


def unpacked(content: bytes, rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Decode the result of `packed` to words (B, S, W), for a store of the given shape."""
    if may_be_compact(shape[2]):
        return _from_lists(content, rows, shape)
    return torch.frombuffer(bytearray(content), dtype=torch.int64).view(rows, *shape[1:])


def refuse_strange_bits(name: str, words: Tensor, latent: int) -> None:
    """Refuse words (..., W) with an active bit beyond the latents, which no array has a place
    for.
    """
    last = latent % BITS
    if last and bool((words[..., -1] & (-1 << last)).any()):
        raise Refusal(f"{name}: active bits beyond {latent} latents; states of this model expected")


def new_store(latent: int, states: int, held: HeldRows, mapped: str | None) -> HeldPopulations:
    """Return a new store for a worker's rows: in a file in the folder `mapped`, or in memory.

    In memory, states are stored as lists of active bits if `may_be_compact`.
    """
    rows, width = len(held), words_of(latent)
    if mapped is None and may_be_compact(width):
        check_populations_fit(available_memory(), rows, states, width)
        return CompactStore(states, width, held)
    words = empty_populations(rows, states, width, mapped)
    return LocalStore(words, held, stays=mapped is not None)


def as_words(store: HeldPopulations, device: torch.device, free: float) -> HeldPopulations:
    """Convert a compact store to words on a device with `free` bytes. Return any other store
    unchanged, and a store whose words would take more than half of the bytes.
    """
    if not isinstance(store, CompactStore) or 8 * math.prod(store.shape) > free / 2:
        return store
    return LocalStore(store.read(slice(None)).to(device), store.held)


def parts_of(rows: int, count: int) -> Iterator[slice]:
    """Yield consecutive slices of `count` rows."""
    for first in range(0, rows, count):
        yield slice(first, min(first + count, rows))


def _held(layout: Layout) -> HeldRows:
    kind = Bands if layout.get("bands") else Lanes
    return kind(layout["rows"], layout["lanes"]).held(layout["rank"], layout["size"])


def _metadata(layout: Layout, version: int) -> dict[str, str]:
    """Return the metadata of an Arrow file."""
    return {name: str(value) for name, value in ({"version": version} | layout).items()}


def _check_metadata(kept: PopulationFile, metadata: dict[bytes, bytes]) -> None:
    """Refuse a file whose metadata differs from its entry in the checkpoint."""
    found = {key.decode(): value.decode() for key, value in metadata.items()}
    if int(found["version"]) not in (WORDS, LISTS):
        raise Refusal(
            f"{kept['file']}: of format {found['version']}, and this distvae reads {WORDS} and"
            f" {LISTS}; use the one that wrote it"
        )
    if found != _metadata(kept["layout"], int(found["version"])):
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
