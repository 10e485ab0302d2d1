"""Write tables of any size to Arrow files in which every row has a random place.

The data is read twice. First, every row is appended to a bucket, one for each future file; then one
bucket after another is put in order in memory. The place of a row depends only on the seed and the
number of rows.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array, positions_by_label
from distvae.data.tables import arrow
from distvae.data.tables.formats import SUFFIXES, Table
from distvae.data.tables.rows import MANIFEST, VERSION, FileEntry, digest
from distvae.files.memory import require_memory
from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.noise import order

PLACING = -3  # the epoch whose order places rows: that of none in training, which would undo it
BLOCK = 2**25  # bytes of rows looked at together
FILE = 2**28  # bytes of the rows of a file

PLACE = 2 * 8
"""Bytes of memory that a row takes by its place, twice while places are drawn."""
COPIES = 3
"""Of some rows that are held together."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A file to write, with the rows whose places begin at the first."""

    split: str
    name: str
    first: int
    rows: int


@dataclass(frozen=True)
class Division:
    """The splits, the order and the files that rows are divided into."""

    val: float = 0.05
    """Share of the rows for validation; `test` likewise."""
    test: float = 0.05
    seed: int = 0
    """Seed of the order of the rows."""
    rows_per_file: int | None = None
    """None for files of 256 MB."""


def ingest(
    sources: Sequence[Path],
    out: Path,
    division: Division | None = None,
    force: bool = False,
    quiet: bool = False,
) -> str:
    """Place the rows of all sources in a new folder; return a sentence on what it holds."""
    division = division or Division()
    _claim(out, force)
    tables = [Table.open(path) for path in sources]
    rows, values = sum(table.rows for table in tables), _width(tables)
    require_memory(tables[0].path, PLACE * rows, f"places of {rows:,} rows")
    require_memory(tables[0].path, 4 * COPIES * values, f"rows of {values:,} values")
    counts = _counts(rows, division.val, division.test)
    rows_per_file = division.rows_per_file or max(1, FILE // (4 * values))
    parts = list(_parts(counts, rows_per_file))
    with _whole(out.resolve()) as folder, _progress(2 * rows, quiet) as advance:
        buckets = Buckets(folder, parts, values)
        places = order(division.seed, PLACING, rows)
        missing = _scatter(tables, places, buckets, advance)
        splits = _gather(folder, buckets, advance)
        named = [{"name": table.path.name, "rows": table.rows} for table in tables]
        facts = {
            "version": VERSION,
            "values": values,
            "seed": division.seed,
            "sources": named,
            "missing": missing,
        }
        _write_manifest(folder, facts | {"splits": splits})
    return _summary(out, splits, values, missing)


def _claim(out: Path, force: bool) -> None:
    """Refuse to write over anything, or with force over anything but rows of ours."""
    if out.suffix.lower() in SUFFIXES:
        raise Refusal(
            f"{out}: the name of one more table; that of the folder to make expected last"
        )
    if not out.exists():
        check_writable_folder(out)
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise Refusal(
            f"{out}: exists, and 'distvae ingest' did not make it; the name of a new folder"
            " expected"
        )
    if not force:
        raise Refusal(f"{out}: exists; --force replaces it; or another name")


def _width(tables: Sequence[Table]) -> int:
    first = tables[0]
    for table in tables:
        if table.values != first.values:
            raise Refusal(
                f"{table.path}: rows of {table.values} values; {first.values} expected, as"
                f" {first.path} has"
            )
    return first.values


def _counts(rows: int, val: float, test: float) -> dict[str, int]:
    """Return the number of rows of every split that has any."""
    for name, share in {"--val": val, "--test": test, "--val + --test": val + test}.items():
        if not 0 <= share < 1:
            raise Refusal(f"{name}: {share:g}; at least 0 and less than 1 expected")
    aside = {
        split: max(1, round(share * rows))
        for split, share in {"val": val, "test": test}.items()
        if share
    }
    train = rows - sum(aside.values())
    if train < 1:
        raise Refusal(
            f"--val, --test: nothing is left to train on of {rows} rows; more rows or smaller"
            " shares expected"
        )
    return {"train": train} | aside


def _parts(counts: dict[str, int], max_rows: int) -> Iterator[Part]:
    first = 0
    for split, count in counts.items():
        for k, start in enumerate(range(0, count, max_rows)):
            yield Part(split, f"{split}-{k:05}.arrow", first + start, min(max_rows, count - start))
        first += count


class Buckets:
    """The rows of every part in the order in which they came, each with its place."""

    def __init__(self, folder: Path, parts: Sequence[Part], values: int) -> None:
        self.folder, self.parts, self.values = folder, parts, values
        self.firsts = np.array([part.first for part in parts])
        self.record = np.dtype([("place", np.int64), ("row", np.float32, (values,))])

    def add(self, places: Places, rows: Array) -> None:
        """Append rows to the buckets of their places."""
        owner = np.searchsorted(self.firsts, places, "right") - 1
        for chosen in positions_by_label(owner):
            part = self.parts[owner[chosen[0]]]
            records = np.empty(len(chosen), self.record)
            records["place"], records["row"] = places[chosen] - part.first, rows[chosen]
            with self._path(part).open("ab") as stream:
                stream.write(records.data)

    def take(self, part: Part) -> Array:
        """Return the rows of a part in their places, and delete its bucket."""
        records = np.memmap(self._path(part), self.record, "r")
        assert len(records) == part.rows, "places are a permutation"
        rows = np.empty((part.rows, self.values), np.float32)
        rows[records["place"]] = records["row"]
        self._path(part).unlink()
        return rows

    def _path(self, part: Part) -> Path:
        return self.folder / f"{part.name}.bucket"


def _scatter(
    tables: Sequence[Table], places: Places, buckets: Buckets, advance: Callable[[int], None]
) -> bool:
    """Append every row to its bucket; return True if any value is missing."""
    first, missing = 0, False
    for table in tables:
        for rows in table.blocks(max(1, BLOCK // (4 * table.values))):
            buckets.add(places[first : first + len(rows)], rows)
            first, missing = first + len(rows), missing or bool(np.isnan(rows).any())
            advance(len(rows))
    return missing


def _gather(
    folder: Path, buckets: Buckets, advance: Callable[[int], None]
) -> dict[str, list[FileEntry]]:
    """Write every bucket to its file; return the files by split."""
    splits: dict[str, list[FileEntry]] = {}
    for part in buckets.parts:
        size, checksum = arrow.save(folder, part.name, buckets.take(part))
        entry: FileEntry = {"file": part.name, "rows": part.rows, "bytes": size, "sha256": checksum}
        splits.setdefault(part.split, []).append(entry)
        advance(part.rows)
    return splits


def _write_manifest(folder: Path, facts: dict[str, object]) -> None:
    with Folder(folder).create(MANIFEST) as sink:
        sink.write(json.dumps(facts | {"digest": digest(facts)}, indent=1).encode())


def _summary(out: Path, splits: dict[str, list[FileEntry]], values: int, missing: bool) -> str:
    counts = {split: sum(entry["rows"] for entry in files) for split, files in splits.items()}
    each = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    size = sum(entry["bytes"] for files in splits.values() for entry in files)
    what = (
        f"{sum(counts.values()):,} rows ({each}) of {values:,} values{', some missing' * missing},"
        f" {size:,} bytes"
    )
    command = (
        "distvae train mnist-vae data.kind=rows model.likelihood=gaussian --data"
        f" {shlex.quote(str(out))}"
    )
    return f"{out}: {what}; next: {command}"


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Yield a partial folder beside `out` that takes its name when the block ends without an error.
    The remains of an interrupted ingest are deleted.
    """
    from filelock import FileLock, Timeout

    partial, replaced = (out.with_name(f".{out.name}.{word}") for word in ("partial", "replaced"))
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                _remove(partial, replaced)
                partial.mkdir()
                yield partial
                _settle(partial, out, replaced)
            finally:
                _remove(partial, replaced)
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise Refusal(
            f"{out}: another ingest is writing it; another name expected, or wait"
        ) from error
    except OSError as error:
        raise Refusal(
            f"{out}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(partial: Path, out: Path, replaced: Path) -> None:
    """Give a finished folder its name, durably."""
    _sync(partial)
    if out.exists():
        out.rename(replaced)
    partial.rename(out)
    _sync(out.parent)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts rows under a progress bar, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("Rows to their places", total=total)
        yield lambda rows: progress.advance(task, rows)
