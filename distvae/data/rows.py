"""Tables of numbers: files that are read in blocks of rows, and the Arrow files that
`distvae ingest` wrote, memory-mapped.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from distvae.config import RowsData
from distvae.data import folders
from distvae.data.dataset import Array, Dataset, LazyRows, Rows, Stacked
from distvae.data.family import DataFamily, Survey, Values, count_rows, register
from distvae.data.folders import some_names
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import read_arrow
from distvae.files.untrusted import (
    Tree,
    decoding,
    read_json,
    refuse_strange_entries,
    require_regular_file,
)
from distvae.numerics.arrays import Facts

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".npy", ".parquet", ".arrow", ".feather")
FROM_CSV = "of a CSV file, pandas.read_csv(IN).to_parquet(OUT, index=False) makes one"
"""How a file of text becomes a table."""
INDEX = re.compile(r"__index_level_\d+__")
"""The name that pandas gives the column of an index without a name."""
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
    def open(cls, path: Path) -> "Table":
        """Return a table, read only as far as its shape requires."""
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise Refusal(
                f"{path}: '{path.suffix}' is no table known here; {', '.join(SUFFIXES)} expected;"
                f" {FROM_CSV}"
            )
        require_regular_file(path, "a table of numbers")
        written = path.stat().st_mtime_ns
        with decoding(path, f"a whole {path.suffix} file"):
            opened = {".npy": _open_array, ".parquet": _open_parquet}.get(suffix, _open_arrow)(path)
        rows, values, read, names = opened
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


Opened = tuple[int, int, Blocks, tuple[str, ...]]
"""The rows of a table, the values of a row, how blocks are read, and the names of the values."""


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


def _open_parquet(path: Path) -> Opened:
    import pyarrow.parquet as pq

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)

    def batches(max_rows: int) -> "Iterator[pa.RecordBatch]":
        for batch in opened().iter_batches(max_rows):
            batch.validate(full=True)  # the lists of a damaged file may end anywhere
            yield batch

    file = opened()
    return _open_columns(path, file.schema_arrow, file.metadata.num_rows, batches)


def _open_arrow(path: Path) -> Opened:
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

    return _open_columns(path, schema, rows, batches)


def _open_columns(path: Path, schema: "pa.Schema", rows: int, batches: Batches) -> Opened:
    """Open columns of numbers, or one column of lists of numbers."""
    from pyarrow import types

    _refuse_index(path, schema)
    kinds = [field.type for field in schema]
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    has_lists = len(kinds) == 1 and any(matches(kinds[0]) for matches in lists)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    words = []
    for name, kind in zip(schema.names, kinds, strict=True):
        kind = kind.value_type if has_lists else kind
        if not any(matches(kind) for matches in numbers):
            words.append(f"'{name}' holds {kind}")
    if words:
        raise Refusal(
            f"{path}: column {some_names(words)}; columns of numbers, or one column of lists of"
            " numbers, expected: leave others out, or replace them by numbers"
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
        raise Refusal(
            f"{path}: column '{index}' is an index that pandas wrote, and no value; a file without"
            " it expected, such as df.to_parquet(..., index=False) writes"
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


MANIFEST = "rows.json"
FACTS = "facts.json"
VERSION = 1
CHECKED_AT_ONCE = 2**32
"""Bytes of all files up to which all files are checked before training begins. Of larger data,
each worker checks the files that it reads.
"""
TABLE = "a table of numbers, to be ingested first"
BLOCK = 2**16
"""Rows of a table that are read together."""


@register(RowsData)
class RowsFamily(DataFamily[RowsData]):
    """Rows that `distvae ingest` placed in Arrow files."""

    values = Values(may_be_missing=True)

    def open(self, quiet: bool = False) -> Dataset:
        """Return the rows of a folder by split, mapped into memory.

        Names and sizes of the files are checked every time, checksums once per machine and whenever
        a file has changed. If the files are large, each is opened and checked when a row of it is
        read.
        """
        expected = "a folder that 'distvae ingest' made expected"
        root = folders.find_data_folder(self.config.path, "rows", expected)
        refuse_strange_entries(root)
        manifest = read_manifest(root)
        named: dict[str, list[FileEntry]] = manifest["splits"]
        every = [entry for part in named.values() for entry in part]
        _refuse_others(root, {entry["file"] for entry in every})
        values: int = manifest["values"]
        parts = {
            split: [FileRows(root / entry["file"], entry, values) for entry in entries]
            for split, entries in named.items()
        }
        if sum(entry["bytes"] for entry in every) <= CHECKED_AT_ONCE:
            _check_all([file for files in parts.values() for file in files], quiet)
        facts = _read_facts(root, manifest["digest"])
        splits: dict[str, Rows] = {
            split: Stacked(files, facts.get(split)) for split, files in parts.items()
        }
        # training rows validate, and validation rows test, where a split is missing
        splits.setdefault("val", splits["train"])
        splits.setdefault("test", splits["val"])
        ordered = {split: splits[split] for split in folders.SPLITS}
        return Dataset(root.name, "row", manifest["digest"], ordered, root)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a folder of rows, or of a table that is still to be ingested."""
        place = Path(path)
        if place.is_file() and place.suffix.lower() in SUFFIXES:
            table = Table.open(place)
            return Survey(path, TABLE, "rows", {}, {"rows": table.rows, "values": table.values})
        if place.is_file() and place.suffix.lower() == ".csv":
            raise Refusal(f"{place}: a table as text; {', '.join(SUFFIXES)} expected; {FROM_CSV}")
        if not (place / MANIFEST).is_file():
            return None
        dataset = cls(RowsData(path=path)).open()
        counts = count_rows(dataset, "rows")
        return Survey(path, "rows of numbers", "rows", counts, {"values": dataset.dims})

    @classmethod
    def examine(cls, path: str, settings: Sequence[str] = ()) -> Survey | None:
        """Return the same survey after every row of a table was read."""
        found = cls.survey(path)
        if found and found.layout == TABLE:
            for _ in Table.open(Path(path)).blocks(BLOCK):
                pass
        return found

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return a command to ingest a table, or to train on a folder of rows."""
        if survey.layout == TABLE:
            return f"distvae ingest {survey.quoted_path} rows"
        return training_command(survey.path)


class FileEntry(TypedDict):
    """A file of rows in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str


class FileRows(LazyRows):
    """The rows of a file. The file is opened when a row is read."""

    def __init__(self, path: Path, entry: FileEntry, values: int) -> None:
        if not path.is_file():
            raise Refusal(f"{path}: missing; {MANIFEST} names it")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise Refusal(
                f"{path}: altered, or not copied whole: {size:,} bytes; {entry['bytes']:,} expected"
            )
        self.path, self.entry = path, entry
        self.shape = (entry["rows"], values)
        self.mapped: Array | None = None

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> Array:
        if self.mapped is None:
            self.mapped = self.open()
        return self.mapped[rows]

    def open(self) -> Array:
        """Return the rows, mapped into memory. The checksum is compared once on this machine."""
        mapped = self.map()
        folders.build_once(_checked(self.path, self.entry), lambda _: self._refuse_altered())
        return mapped

    def map(self) -> Array:
        """Return the rows, mapped into memory, without comparing the checksum."""
        rows = read_arrow(self.path)
        if rows.shape != self.shape:
            raise Refusal(f"{self.path}: {rows.shape} rows and values; {self.shape} expected")
        return rows

    def _refuse_altered(self) -> None:
        if folders.digest(self.path) != self.entry["sha256"]:
            raise Refusal(
                f"{self.path}: altered or damaged: its checksum is not the one in {MANIFEST}"
            )


def _check_all(parts: Sequence[FileRows], quiet: bool) -> None:
    """Open and check all files before training begins."""
    for part in parts:
        part.map()  # refuses damaged files with a better message
    opened = folders.map_in_order(FileRows.open, parts)
    found = folders.with_progress(opened, "Checksums of rows", len(parts), quiet)
    for part, rows in zip(parts, found, strict=True):
        part.mapped = rows


def note_checked(root: Path, entries: Sequence[FileEntry]) -> None:
    """Record that files which this machine has just written need no check."""
    for entry in entries:
        folders.build_once(_checked(root / entry["file"], entry), lambda _: None)


def _checked(path: Path, entry: FileEntry) -> Path:
    """Return the folder of the cache that exists once the file was checked."""
    known = folders.key_of([str(path), path.stat().st_mtime_ns, entry])
    return folders.cache_folder() / "checked" / known


def _read_facts(root: Path, rows: str) -> dict[str, Facts]:
    """Return the recorded facts of each split; none in folders of older versions."""
    path = root / FACTS
    if not path.is_file():
        return {}
    content = read_json(path)
    if (content.get("digest"), content.get("rows")) != (digest(content), rows):
        raise Refusal(
            f"{path}: altered or damaged, or of other rows; as 'distvae ingest' wrote it expected,"
            " or none"
        )
    return {split: Facts.read(record) for split, record in content.get("splits", {}).items()}


def digest(manifest: Mapping[str, object]) -> str:
    """Return the SHA-256 of a manifest without its digest."""
    facts = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_manifest(root: Path) -> Tree:
    """Return the manifest of a folder; refuse a manifest that 'distvae ingest' did not write."""
    path = root / MANIFEST
    if not path.is_file():
        raise Refusal(
            f"{root}: holds no {MANIFEST}; a folder that 'distvae ingest SOURCE... OUT' made"
            " expected"
        )
    manifest = read_json(path)
    if (version := manifest.get("version")) != VERSION:
        raise Refusal(
            f"{path}: of format {shown(version)}, and this distvae reads {VERSION}; use the one"
            " that wrote it"
        )
    if manifest.get("digest") != digest(manifest):
        raise Refusal(f"{path}: altered or damaged: its digest is not that of its content")
    if not _is_complete(manifest):
        raise Refusal(
            f"{path}: altered or damaged: lacks a field, or one is wrong; as 'distvae ingest' wrote"
            " it expected"
        )
    return manifest


def _is_complete(manifest: Mapping[str, object]) -> bool:
    """Return whether a manifest has all fields, with the right types."""
    match manifest:
        case {"values": int(values), "splits": {"train": [_, *_] as train, **others}}:
            lists = all(
                isinstance(files, list) and all(map(_is_kept, files))
                for files in (train, *others.values())
            )
            return (
                values > 0 and lists and others.keys() <= {"val", "test"} and all(others.values())
            )
    return False


def _is_kept(entry: object) -> bool:
    match entry:
        case {"file": str(file), "rows": int(), "bytes": int(), "sha256": str()}:
            return file == Path(file).name != ""
    return False


def training_command(folder: str) -> str:
    """Return a command to train on a folder of rows in any units."""
    settings = "data.kind=rows model.likelihood=gaussian estep.input=standard"
    return f"distvae train mnist-vae {settings} --data {shlex.quote(folder)}"


def _refuse_others(root: Path, named: set[str]) -> None:
    names = {path.name for path in root.glob("*.arrow") if not path.name.startswith(".")}
    others = sorted(names - named)
    if others:
        raise Refusal(
            f"{root / others[0]}: in no list of {MANIFEST}; the files of one ingest alone expected"
        )
