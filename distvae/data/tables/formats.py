"""Tables of numbers in .npy, .parquet, .arrow and .feather files, read in blocks of rows."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.data.files import some_names
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    import pyarrow as pa

Blocks = Callable[[int], Iterator[Array]]
"""From the most rows that a block may have to all blocks."""
Batches = Callable[[int], "Iterator[pa.RecordBatch]"]
"""The same before they are arrays."""
Names = tuple[str, ...]
Shape = tuple[int, int, Blocks, Names]
"""The number of rows, the values of a row, how rows are read, and the names of the values."""
FROM_CSV = "of a CSV file, pandas.read_csv(IN).to_parquet(OUT, index=False) makes one"
"""How a file of text becomes a table."""
INDEX = re.compile(r"__index_level_\d+__")
"""The name that pandas gives the column of an index without a name."""


@dataclass(frozen=True)
class Table:
    """A file of rows of numbers."""

    path: Path
    rows: int
    values: int
    """The number of values of a row."""
    read: Blocks
    names: Names
    """The names of the values; an array and lists have none."""
    written: int
    """When the file was written, in nanoseconds."""

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Return a table, read only as far as its shape requires."""
        if path.suffix.lower() not in SUFFIXES:
            raise Refusal(
                f"{path}: '{path.suffix}' is no table known here; {', '.join(SUFFIXES)} expected;"
                f" {FROM_CSV}"
            )
        require_regular_file(path, "a table of numbers")
        written = path.stat().st_mtime_ns
        with decoding(path, f"a whole {path.suffix} file"):
            rows, values, read, names = _OPENERS[path.suffix.lower()](path)
        if not rows or not values:
            raise Refusal(f"{path}: {rows} rows of {values} values; one of each at least expected")
        return cls(path, rows, values, read, names, written)

    def blocks(self, max_rows: int) -> Iterator[Array]:
        """Yield all rows in order, at most so many at a time. Values are finite, or NaN if
        missing.
        """
        seen = 0
        with decoding(self.path, f"a whole {self.path.suffix} file"):
            for block in self.read(max_rows):
                self._refuse_changes()
                self._refuse_infinite(block, seen)
                yield block
                seen += len(block)
        self._refuse_changes()
        if seen != self.rows:
            raise Refusal(
                f"{self.path}: says it has {self.rows:,} rows, but has {seen:,}; a whole"
                f" {self.path.suffix} file expected"
            )

    def _refuse_changes(self) -> None:
        if self.path.stat().st_mtime_ns != self.written:
            raise Refusal(
                f"{self.path}: written while it was read; a file that does not change expected"
            )

    def _refuse_infinite(self, block: Array, first: int) -> None:
        infinite = np.isinf(block)
        if infinite.any():
            row = first + int(infinite.any(1).argmax())
            raise Refusal(
                f"{self.path}: row {row} is infinite, or too large for 32 bits; finite"
                " values expected"
            )


def _npy(path: Path) -> Shape:
    array = _map(path)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise Refusal(
            f"{path}: {array.dtype} of shape {array.shape}; (rows, values) of real numbers expected"
        )
    rows, values = array.shape

    def read(max_rows: int) -> Iterator[Array]:
        for first in range(0, rows, max_rows):
            with np.errstate(over="ignore"):  # what becomes infinite is refused
                block = np.ascontiguousarray(_map(path)[first : first + max_rows], np.float32)
            yield block

    return rows, values, read, ()


def _map(path: Path) -> NDArray[np.generic]:
    """Map an .npy file into memory; nothing is unpickled."""
    return np.lib.format.open_memmap(path, mode="r")


def _parquet(path: Path) -> Shape:
    import pyarrow.parquet as pq

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)

    def read(max_rows: int) -> "Iterator[pa.RecordBatch]":
        return map(_whole, opened().iter_batches(max_rows))

    file = opened()
    return _columns(path, file.schema_arrow, file.metadata.num_rows, read)


def _arrow(path: Path) -> Shape:
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


def _columns(path: Path, schema: "pa.Schema", rows: int, batches: Batches) -> Shape:
    """Return the shape of columns of numbers, or of one column of lists of numbers."""
    _refuse_index(path, schema)
    kinds = [field.type for field in schema]
    if len(kinds) == 1 and _is_list(kinds[0]):
        _refuse_words(path, schema.names, [kinds[0].value_type])
        first = next((batch for batch in batches(1) if len(batch)), None)
        values = 0 if first is None else len(first.column(0).flatten())
        if rows and not values:
            raise Refusal(f"{path}: row 0 is an empty list, or null; lists of one length expected")
        return rows, values, partial(_lists, path, values, batches), ()
    _refuse_words(path, schema.names, kinds)
    _refuse_twice(path, schema.names)
    return rows, len(kinds), partial(_stacked, batches), tuple(schema.names)


def _stacked(batches: Batches, max_rows: int) -> Iterator[Array]:
    """Yield columns as arrays of rows."""
    for batch in batches(max_rows):
        yield np.stack([_floats(column) for column in batch.columns], 1)


def _is_list(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _refuse_words(path: Path, names: list[str], kinds: "list[pa.DataType]") -> None:
    from pyarrow import types

    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    words = [
        f"'{name}' holds {kind}"
        for name, kind in zip(names, kinds, strict=True)
        if not any(matches(kind) for matches in numbers)
    ]
    if words:
        raise Refusal(
            f"{path}: column {some_names(words)}; columns of numbers, or one column of lists of"
            " numbers, expected: leave others out, or replace them by numbers"
        )


def _refuse_index(path: Path, schema: "pa.Schema") -> None:
    named = _pandas_index(schema)
    index = next((name for name in schema.names if INDEX.fullmatch(name) or name in named), None)
    if index is not None:
        way = "df.to_parquet(..., index=False)"
        if path.suffix.lower() != ".parquet":
            way = "pa.Table.from_pandas(df, preserve_index=False)"
        raise Refusal(
            f"{path}: column '{index}' is an index that pandas wrote, and no value; a file without"
            f" it expected: {way}"
        )


def _pandas_index(schema: "pa.Schema") -> list[object]:
    """Return the columns that were the index of a data frame, as pandas notes them in a file. An
    index that is a range is no column.
    """
    try:
        noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        return []
    columns = noted.get("index_columns") if isinstance(noted, dict) else None
    return columns if isinstance(columns, list) else []


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refusal(f"{path}: two columns are called {shown(twice)}; a name for each expected")


def _lists(path: Path, values: int, batches: Batches, max_rows: int) -> Iterator[Array]:
    """Yield lists of one length as arrays; refuse a list of another length, and null."""
    from pyarrow import compute

    first = 0
    for column in (batch.column(0) for batch in batches(max_rows)):
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
