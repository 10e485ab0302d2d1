"""Tables of numbers in .npy, .parquet, .arrow and .feather files, read in blocks of rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    import pyarrow as pa

Blocks = Callable[[int], Iterator[Array]]
"""From the most rows that a block may have to all blocks."""
Batches = Callable[[int], "Iterator[pa.RecordBatch]"]
"""The same before they are arrays."""


@dataclass(frozen=True)
class Table:
    """A file of rows of numbers."""

    path: Path
    rows: int
    values: int
    """Of a row."""
    read: Blocks

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Return a table, read only as far as its shape requires."""
        if path.suffix.lower() not in SUFFIXES:
            raise Refusal(
                f"{path}: '{path.suffix}' is no table known here; {', '.join(SUFFIXES)} expected"
            )
        require_regular_file(path, "a table of numbers")
        with decoding(path, f"a whole {path.suffix} file"):
            rows, values, read = _OPENERS[path.suffix.lower()](path)
        if not rows or not values:
            raise Refusal(f"{path}: {rows} rows of {values} values; one of each at least expected")
        return cls(path, rows, values, read)

    def blocks(self, max_rows: int) -> Iterator[Array]:
        """Yield all rows in order, at most so many at a time. Values are finite, or NaN if
        missing.
        """
        first = 0
        with decoding(self.path, f"a whole {self.path.suffix} file"):
            for block in self.read(max_rows):
                if np.isinf(block).any():
                    row = first + int(np.isinf(block).any(1).argmax())
                    raise Refusal(
                        f"{self.path}: row {row} is infinite, or too large for 32 bits; finite"
                        " values expected"
                    )
                yield block
                first += len(block)
        if first != self.rows:
            raise Refusal(
                f"{self.path}: {self.rows:,} rows at first, {first:,} when read; a file that"
                " does not change expected"
            )


def _npy(path: Path) -> tuple[int, int, Blocks]:
    array = _map(path)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise Refusal(
            f"{path}: {array.dtype} of shape {array.shape}; (rows, values) of real numbers expected"
        )
    rows, values = array.shape
    return (
        rows,
        values,
        lambda max_rows: (_narrow(_map(path)[i : i + max_rows]) for i in range(0, rows, max_rows)),
    )


def _map(path: Path) -> NDArray[np.generic]:
    """Map an .npy file into memory; nothing is unpickled."""
    return np.lib.format.open_memmap(path, mode="r")


def _narrow(values: NDArray[np.generic]) -> Array:
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return np.ascontiguousarray(values, np.float32)


def _parquet(path: Path) -> tuple[int, int, Blocks]:
    import pyarrow.parquet as pq

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)

    facts = opened()
    return _columns(
        path,
        facts.schema_arrow,
        facts.metadata.num_rows,
        lambda max_rows: map(_whole, opened().iter_batches(max_rows)),
    )


def _arrow(path: Path) -> tuple[int, int, Blocks]:
    import pyarrow as pa

    schema = pa.ipc.open_file(pa.memory_map(str(path))).schema
    # Counting rows decompresses no other column.
    first = pa.ipc.IpcReadOptions(included_fields=[0])
    file = pa.ipc.open_file(pa.memory_map(str(path)), options=first)
    rows = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    return _columns(path, schema, rows, partial(_cut, path))


def _cut(path: Path, max_rows: int) -> "Iterator[pa.RecordBatch]":
    """Yield record batches, large ones in parts."""
    import pyarrow as pa

    file = pa.ipc.open_file(pa.memory_map(str(path)))
    for whole in map(_whole, map(file.get_batch, range(file.num_record_batches))):
        yield from (whole.slice(start, max_rows) for start in range(0, len(whole), max_rows))


def _whole(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return the batch, or raise if its lists do not end where their values do, as in a damaged
    file.
    """
    batch.validate(full=True)
    return batch


_OPENERS = {".npy": _npy, ".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow}
SUFFIXES = tuple(_OPENERS)


def _columns(
    path: Path, schema: "pa.Schema", rows: int, batches: Batches
) -> tuple[int, int, Blocks]:
    """Return rows, width and reader of columns of numbers, or of one column of lists of numbers."""
    kinds = [field.type for field in schema]
    if len(kinds) == 1 and _is_list(kinds[0]):
        _refuse_words(path, schema.names, [kinds[0].value_type])
        values = len(next(batches(1)).column(0).flatten()) if rows else 0
        if rows and not values:
            raise Refusal(f"{path}: row 0 is an empty list, or null; lists of one length expected")
        return rows, values, lambda max_rows: _lists(path, values, batches(max_rows))
    _refuse_words(path, schema.names, kinds)
    _refuse_twice(path, schema.names)
    return (
        rows,
        len(kinds),
        lambda max_rows: (
            np.stack([_floats(c) for c in batch.columns], 1) for batch in batches(max_rows)
        ),
    )


def _is_list(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _refuse_words(path: Path, names: list[str], kinds: "list[pa.DataType]") -> None:
    from pyarrow import types

    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    for name, kind in zip(names, kinds, strict=True):
        if not any(matches(kind) for matches in numbers):
            raise Refusal(
                f"{path}: column '{name}' holds {kind}; columns of numbers, or one column of lists"
                " of numbers, expected"
            )


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refusal(f"{path}: two columns are called {shown(twice)}; a name for each expected")


def _lists(path: Path, values: int, batches: "Iterator[pa.RecordBatch]") -> Iterator[Array]:
    """Yield lists of one length as arrays; refuse a list of another length, and null."""
    from pyarrow import compute

    first = 0
    for column in (batch.column(0) for batch in batches):
        lengths = compute.list_value_length(column).fill_null(0).to_numpy()
        if (lengths != values).any():
            row = int((lengths != values).argmax())
            raise Refusal(
                f"{path}: row {first + row} has {lengths[row]} values; {values} expected, as row"
                " 0 has"
            )
        yield _floats(column.flatten()).reshape(-1, values)
        first += len(column)


def _floats(column: "pa.Array") -> Array:
    """Return numbers as float32; null becomes NaN."""
    return np.asarray(column.cast("float32", safe=False).to_numpy(zero_copy_only=False))
