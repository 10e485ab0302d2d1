"""Tables of numbers: files that are read in blocks of rows."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from csv import reader
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.data.dataset import Array
from distvae.data.folders import some_names
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import decoding, require_regular_file

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = (".csv", ".tsv")
SUFFIXES = (".npy", ".parquet", ".arrow", ".feather", *TEXT)
SEPARATORS = ",;\t"
WORD = r"[^\W\d]\w*"
"""A name that needs no quotes in a list."""
LISTED = 200
"""The most letters of the names of columns that a message lists."""
LINE = 2**20
"""The most characters of a table's first line."""
INDEX = re.compile(r"(__index_level_\d+__)?")
"""The names that pandas gives the column of an index without a name."""
Blocks = Callable[[int], Iterator[Array]]
"""From the largest number of rows in a block to all blocks."""
Batches = Callable[[int], "Iterator[pa.RecordBatch]"]
"""From the largest number of rows in a record batch to all record batches."""


@dataclass(frozen=True)
class Table:
    """A file of rows of numbers."""

    path: Path
    rows: int
    values: int
    """The number of values of a row."""
    read: Blocks
    names: tuple[str, ...]
    """The names of the values; an array and lists have none."""
    written: int
    """When the file was written, in nanoseconds."""

    @classmethod
    def open(cls, path: Path, columns: Sequence[str] = ()) -> "Table":
        """Return a table, read only as far as its shape requires, or some of its columns."""
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise Refusal(
                f"{path}: '{path.suffix}' is no table known here; {', '.join(SUFFIXES)} expected"
            )
        require_regular_file(path, "a table of numbers")
        written = path.stat().st_mtime_ns
        with decoding(path, f"a whole {path.suffix} file"):
            rows, values, read, names = _open(suffix, path, columns)
        if not rows or not values:
            raise Refusal(f"{path}: {rows} rows of {values} values; one of each at least expected")
        return cls(path, rows, values, read, names, written)

    def blocks(self, max_rows: int) -> Iterator[Array]:
        """Yield all rows in order, in blocks of at most `max_rows`. Values are finite, or NaN if
        missing.
        """
        seen = 0
        with decoding(self.path, f"a whole {self.path.suffix} file"):
            for block in self.read(max_rows):
                self._refuse_changes()
                infinite = np.isinf(block)
                if infinite.any():
                    raise Refusal(
                        f"{self.path}: row {seen + int(infinite.any(1).argmax())} is infinite, or"
                        " too large for 32 bits; finite values expected"
                    )
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


Stored = tuple["pa.Schema", int, Batches]
"""The columns of a table, its rows, and how they are read."""
Opened = tuple[int, int, Blocks, tuple[str, ...]]
"""The rows of a table, the values of a row, how blocks are read, and the names of the values."""


def _open(suffix: str, path: Path, columns: Sequence[str]) -> Opened:
    if suffix != ".npy":
        by_suffix = {".parquet": _open_parquet, **dict.fromkeys(TEXT, _open_text)}
        return _open_columns(path, *by_suffix.get(suffix, _open_arrow)(path), columns)
    if columns:
        raise Refusal(f"{path}: columns without names; a table with {some_names(columns)} expected")
    return _open_array(path)


def _open_array(path: Path) -> Opened:
    """Open an .npy file through a memory map. Nothing is unpickled."""
    array = np.lib.format.open_memmap(path, mode="r")
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise Refusal(
            f"{path}: {array.dtype} of shape {array.shape}; (rows, values) of real numbers expected"
        )
    rows, values = array.shape

    def read(max_rows: int) -> Iterator[Array]:
        for first in range(0, rows, max_rows):
            # mapped anew for each block, so that pages of blocks before are freed
            mapped = np.lib.format.open_memmap(path, mode="r")
            with np.errstate(over="ignore"):  # infinite values are refused later
                block = np.ascontiguousarray(mapped[first : first + max_rows], np.float32)
            yield block

    return rows, values, read, ()


def _open_parquet(path: Path) -> Stored:
    import pyarrow.parquet as pq

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)

    def batches(max_rows: int) -> "Iterator[pa.RecordBatch]":
        for batch in opened().iter_batches(max_rows):
            batch.validate(full=True)  # the lists of a damaged file may end anywhere
            yield batch

    file = opened()
    return file.schema_arrow, file.metadata.num_rows, batches


def _open_arrow(path: Path) -> Stored:
    import pyarrow as pa

    schema = pa.ipc.open_file(pa.memory_map(str(path))).schema
    # counting rows decompresses the first column alone
    first = pa.ipc.IpcReadOptions(included_fields=[0])
    file = pa.ipc.open_file(pa.memory_map(str(path)), options=first)
    rows = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))

    def batches(max_rows: int) -> "Iterator[pa.RecordBatch]":
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        for batch in map(file.get_batch, range(file.num_record_batches)):
            batch.validate(full=True)  # before it is cut, which trusts its offsets
            yield from (batch.slice(start, max_rows) for start in range(0, len(batch), max_rows))

    return schema, rows, batches


def _open_text(path: Path) -> Stored:
    """Open a file of lines of values, whose first line may name the columns."""
    import pyarrow as pa
    from pyarrow import csv, types

    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline(LINE)
    separator = max(SEPARATORS, key=line.count)
    has_names = not all(_is_number(cell) for cell in next(reader([line], delimiter=separator), ()))
    reading = csv.ReadOptions(autogenerate_column_names=not has_names)
    parsing = csv.ParseOptions(delimiter=separator)

    def opened(kinds: "Mapping[str, pa.DataType] | None" = None) -> "csv.CSVStreamingReader":
        converting = csv.ConvertOptions(column_types=kinds)
        return csv.open_csv(path, reading, parsing, converting)

    # a first block may have whole numbers alone, or no value, where later blocks have fractions
    is_real = (types.is_integer, types.is_floating, types.is_null)
    schema = pa.schema(
        [
            field.with_type(pa.float64())
            if any(matches(field.type) for matches in is_real)
            else field
            for field in opened().schema
        ]
    )
    kinds = dict(zip(schema.names, schema.types, strict=True))
    rows = sum(len(batch) for batch in opened(kinds))

    def batches(max_rows: int) -> "Iterator[pa.RecordBatch]":
        for batch in opened(kinds):
            yield from (batch.slice(start, max_rows) for start in range(0, len(batch), max_rows))

    return schema, rows, batches


def _is_number(cell: str) -> bool:
    """Return whether a cell of a file of text holds a number, or is empty."""
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def _open_columns(
    path: Path, schema: "pa.Schema", rows: int, batches: Batches, columns: Sequence[str]
) -> Opened:
    """Open columns of numbers, or one column of lists of numbers."""
    import pyarrow as pa
    from pyarrow import types

    if columns:
        if absent := [name for name in columns if name not in schema.names]:
            raise Refusal(f"{path}: no column {some_names(absent)}; it has {shown(schema.names)}")
        schema = pa.schema([schema.field(name) for name in columns])
        batches = partial(_selected, batches, columns)
    _refuse_index(path, schema)
    kinds = [field.type for field in schema]
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    has_lists = len(kinds) == 1 and any(matches(kinds[0]) for matches in lists)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    words, others = [], []
    for name, kind in zip(schema.names, kinds, strict=True):
        kind = kind.value_type if has_lists else kind
        if any(matches(kind) for matches in numbers):
            others.append(name)
        else:
            words.append(f"'{name}' holds {kind}")
    if words:
        raise Refusal(
            f"{path}: column {some_names(words)}; columns of numbers, or one column of lists of"
            f" numbers, expected{_choice_of(others)}"
        )
    if has_lists:
        first = next((batch for batch in batches(1) if len(batch)), None)
        values = 0 if first is None else len(first.column(0).flatten())
        if rows and not values:
            raise Refusal(f"{path}: row 0 is an empty list, or null; lists of one length expected")
        return rows, values, partial(_read_lists, path, values, batches), ()
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise Refusal(f"{path}: two columns are called {shown(twice)}; a name for each expected")
    return rows, len(kinds), partial(_read_columns, batches), tuple(schema.names)


def _selected(
    batches: Batches, columns: Sequence[str], max_rows: int
) -> "Iterator[pa.RecordBatch]":
    for batch in batches(max_rows):
        yield batch.select(columns)


def _choice_of(columns: Sequence[str]) -> str:
    """Return how to take some columns alone, as the end of a message."""
    import yaml

    is_plain = all(re.fullmatch(WORD, name) and yaml.safe_load(name) == name for name in columns)
    names = f"[{','.join(columns)}]" if is_plain else json.dumps(columns)
    if not columns or len(names) > LISTED:
        return ": leave others out, or replace them by numbers"
    return f"; to take the others: data.columns={shlex.quote(names)}, or ingest --columns"


def _refuse_index(path: Path, schema: "pa.Schema") -> None:
    """Refuse the column of a data frame's index. An index that is a range is no column."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        noted = {}
    named = noted.get("index_columns") if isinstance(noted, dict) else None
    known = named if isinstance(named, list) else []
    index = next((name for name in schema.names if INDEX.fullmatch(name) or name in known), None)
    if index is not None:
        rest = _choice_of([name for name in schema.names if name != index])
        raise Refusal(
            f"{path}: column '{index}' is an index that pandas wrote, and no value; a file without"
            f" it expected, such as index=False in pandas writes{rest}"
        )


def _read_columns(batches: Batches, max_rows: int) -> Iterator[Array]:
    """Yield columns as arrays of rows."""
    for batch in batches(max_rows):
        yield np.stack([_floats(column) for column in batch.columns], 1)


def _read_lists(path: Path, values: int, batches: Batches, max_rows: int) -> Iterator[Array]:
    """Yield lists of one length as arrays; refuse null and a list of another length."""
    from pyarrow import compute

    first = 0
    for batch in batches(max_rows):
        column = batch.column(0)
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
