"""Write tables of any size to Arrow files in which every row has a random place.

Each row is read once and appended to the bucket of its file. A file is then made from its bucket in
memory. The place of a row depends only on the seed and the number of rows.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import chain, pairwise
from operator import add
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.data.folders import build_once, cache_folder, key_of, with_progress
from distvae.data.tables import SUFFIXES, Table
from distvae.files import storage
from distvae.files.paths import check_writable_folder, gigabytes, require_memory
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import Folder
from distvae.files.untrusted import Tree
from distvae.numerics.arrays import Facts
from distvae.numerics.rows import Permutations

MANIFEST = "rows.json"
FACTS = "facts.json"
VERSION = 1
PLACING = -3
"""The epoch whose order places rows. No epoch of training has this order, which would undo it."""
FILE = 2**28
"""Bytes of the rows of a file."""
BLOCK = 2**25
"""Bytes of the rows that are read together."""
COPIES = 4
"""Copies in memory of the rows that are read together."""
PROCESS = 2**27
"""Bytes of memory of a process without any rows."""
TOGETHER = 2**15
"""Places that are computed together. They fit into a processor's cache."""
MADE = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(FACTS)}|(train|val|test)-\d+\.arrow")
"""The names of the files that an ingest writes."""
OF_SYSTEMS = (".DS_Store", ".directory", "Thumbs.db", "desktop.ini")
"""The names of files that file managers put into folders."""


class FileEntry(TypedDict):
    """A file of rows in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str


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

    def counts(self, rows: int) -> dict[str, int]:
        """Return the number of rows of every split that has any."""
        shares = {"--val": self.val, "--test": self.test, "--val + --test": self.val + self.test}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise Refusal(f"{name}: {share:g}; at least 0 and less than 1 expected")
        aside = {
            split: max(1, round(share * rows))
            for split, share in {"val": self.val, "test": self.test}.items()
            if share
        }
        train = rows - sum(aside.values())
        if train < 1:
            raise Refusal(
                f"--val, --test: nothing is left to train on of {rows} rows; more rows or smaller"
                " shares expected"
            )
        return {"train": train} | aside

    def parts(self, rows: int, values: int) -> list[Part]:
        """Return the files to write."""
        most, parts, first = self.rows_per_file or max(1, FILE // (4 * values)), list[Part](), 0
        for split, count in self.counts(rows).items():
            for k, start in enumerate(range(0, count, most)):
                name = f"{split}-{k:05}.arrow"
                parts.append(Part(split, name, first + start, min(most, count - start)))
            first += count
        return parts


def ingest(
    sources: Sequence[Path],
    out: Path,
    division: Division | None = None,
    force: bool = False,
    quiet: bool = False,
    columns: Sequence[str] = (),
) -> str:
    """Place the rows of all sources, or some of their columns, in a new folder; return a sentence
    about the folder.
    """
    division = division or Division()
    _claim(out, force)
    opened = [Table.open(path, columns) for path in sources]
    _refuse_other_columns(opened)
    rows, values, seed = sum(table.rows for table in opened), opened[0].values, division.seed
    parts = division.parts(rows, values)
    held = max(part.rows for part in parts)
    in_memory = held + COPIES * min(_rows_per_block(values), rows)
    first = sources[0]
    require_memory(first, PROCESS + 4 * values * in_memory, f"rows of {values:,} values")
    named = [{"name": table.path.name, "rows": table.rows} for table in opened]
    with _whole_folder(out.resolve(), force) as (folder, buckets):
        # the buckets, and one file beside them
        needed, free = 4 * (values + 1) * rows + 4 * values * held, shutil.disk_usage(folder).free
        if needed > free:
            raise Refusal(
                f"{out}: {rows:,} rows need {gigabytes(needed)} of disk until they are in their"
                f" places, but {gigabytes(free)} are free"
            )
        _fill(buckets, opened, parts, seed, quiet)
        saved = [
            _save(folder / part.name, buckets / part.name, part, values)
            for part in with_progress(parts, "Files of rows", len(parts), quiet)
        ]
        about = {"values": values, "seed": seed, "sources": named}
        manifest = _write_manifest(Folder(folder), about, parts, saved)
    note_checked(out.resolve(), [entry for entry, _ in saved])
    return _summary(out, manifest)


def _claim(out: Path, force: bool) -> None:
    """Refuse to write over anything but, with force, an older ingest."""
    if out.suffix.lower() in SUFFIXES:
        raise Refusal(f"{out}: the name of one more table; the name of a new folder expected last")
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
    names = {path.name for path in out.iterdir()}.difference(OF_SYSTEMS)
    if strange := sorted(name for name in names if not MADE.fullmatch(name)):
        raise Refusal(
            f"{out / strange[0]}: 'distvae ingest' did not make it, and it would be lost with the"
            " folder that is replaced; a folder without it, or another name expected"
        )


def _refuse_other_columns(opened: Sequence[Table]) -> None:
    """Refuse tables that differ in the number of values, or in the names of columns that have
    names.
    """
    first, named = opened[0], [table for table in opened if table.names]
    for table in opened:
        if table.values != first.values:
            raise Refusal(
                f"{table.path}: rows of {table.values} values; {first.values} expected, as"
                f" {first.path} has"
            )
    for table in named[1:]:
        pairs = zip(table.names, named[0].names, strict=True)
        differing = [(found, expected) for found, expected in pairs if found != expected]
        if differing:
            found, expected = map(list, zip(*differing, strict=True))
            raise Refusal(
                f"{table.path}: columns {shown(found)}; {shown(expected)} expected in their places,"
                f" as {named[0].path} has"
            )


def _rows_per_block(values: int) -> int:
    return max(1, BLOCK // (4 * values))


@contextmanager
def _whole_folder(out: Path, force: bool) -> Iterator[tuple[Path, Path]]:
    """Yield a folder that becomes `out` if the block ends without an error, and a folder for
    buckets. Remains of a killed ingest are deleted.
    """
    from filelock import FileLock, Timeout

    partial, replaced = (out.with_name(f".{out.name}.{word}") for word in ("partial", "replaced"))
    folder, buckets = partial / "rows", partial / "buckets"
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                shutil.rmtree(partial, ignore_errors=True)
                folder.mkdir(parents=True)
                buckets.mkdir()
                yield folder, buckets
                _settle(folder, out, replaced, force)
            finally:
                for remains in (partial, replaced):
                    shutil.rmtree(remains, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise Refusal(
            f"{out}: another ingest is writing it; another name expected, or wait"
        ) from error
    except OSError as error:
        raise Refusal(
            f"{out}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error


def _settle(folder: Path, out: Path, replaced: Path, force: bool) -> None:
    """Rename a finished folder, durably."""
    _sync(folder)
    _claim(out, force)  # again: another program may have written there since
    try:
        if out.exists():
            out.rename(replaced)
        folder.rename(out)
    except BaseException:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise
    _sync(out.parent)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fill(
    buckets: Path, opened: Sequence[Table], parts: Sequence[Part], seed: int, quiet: bool
) -> None:
    """Append every row to the bucket of its file, behind its place in that file."""
    rows, values = sum(part.rows for part in parts), opened[0].values
    key = np.random.SeedSequence([seed, PLACING % 2**64]).generate_state(1, np.uint64)
    order = Permutations(key.astype(np.uint64), np.array([rows]))
    firsts, seen, count = np.array([part.first for part in parts]), 0, _rows_per_block(values)
    blocks = _joined(opened, count)
    for block in with_progress(blocks, "Rows into buckets", -(-rows // count), quiet):
        places = _places(order, seen, seen + len(block))
        by = np.argsort(places)
        bounds = np.searchsorted(places[by], [*firsts, rows])
        records = np.empty((len(block), 1 + values), np.uint32)
        records[:, 0] = places[by] - np.repeat(firsts, np.diff(bounds))
        records[:, 1:] = block.view(np.uint32)[by]
        for part, (start, stop) in zip(parts, pairwise(bounds), strict=True):
            with (buckets / part.name).open("ab") as bucket:
                bucket.write(records[start:stop].data)
        seen += len(block)


def _joined(opened: Sequence[Table], count: int) -> Iterator[Array]:
    """Yield the rows of all tables in blocks of `count` rows, in an array that is used again."""
    joined, filled = np.empty((count, opened[0].values), np.float32), 0
    for block in chain.from_iterable(table.blocks(count) for table in opened):
        taken = min(len(block), count - filled)
        joined[filled : filled + taken] = block[:taken]
        filled += taken
        if filled == count:
            yield joined
            filled = len(block) - taken
            joined[:filled] = block[taken:]
    if filled:
        yield joined[:filled]


def _places(order: Permutations, first: int, last: int) -> NDArray[np.int64]:
    """Return the places of the rows from `first` to `last` in the sources."""
    starts = range(first, last, TOGETHER)
    return np.concatenate([order.at(start, min(start + TOGETHER, last))[:, 0] for start in starts])


def _save(path: Path, bucket: Path, part: Part, values: int) -> tuple[FileEntry, Facts]:
    """Make a file from its bucket, and delete the bucket; return the facts about the file."""
    rows, width = np.empty((part.rows, values), np.float32), 1 + values
    words = rows.view(np.uint32)
    with bucket.open("rb") as stream:
        while len(some := np.fromfile(stream, np.uint32, width * _rows_per_block(values))):
            records = some.reshape(-1, width)
            words[records[:, 0]] = records[:, 1:]
    bucket.unlink()
    size, checksum = storage.save_arrow(path, rows)
    entry: FileEntry = {"file": part.name, "rows": part.rows, "bytes": size, "sha256": checksum}
    return entry, Facts.of(rows)


def _write_manifest(
    folder: Folder,
    about: Mapping[str, object],
    parts: Sequence[Part],
    saved: Sequence[tuple[FileEntry, Facts]],
) -> Tree:
    """Write the manifest of the files and the facts about their rows; return the manifest."""
    splits, facts = dict[str, list[FileEntry]](), dict[str, list[Facts]]()
    for part, (entry, found) in zip(parts, saved, strict=True):
        splits.setdefault(part.split, []).append(entry)
        facts.setdefault(part.split, []).append(found)
    totals = {split: reduce(add, found) for split, found in facts.items()}
    missing = any(total.missing for total in totals.values())
    manifest: Tree = {"version": VERSION, **about, "missing": missing, "splits": splits}
    manifest["digest"] = digest(manifest)
    records = {split: total.record() for split, total in totals.items()}
    record: Tree = {"version": VERSION, "rows": manifest["digest"], "splits": records}
    folder.write(FACTS, json.dumps(record | {"digest": digest(record)}).encode())
    folder.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def _summary(out: Path, manifest: Tree) -> str:
    splits: dict[str, list[FileEntry]] = manifest["splits"]
    counts = {split: sum(entry["rows"] for entry in files) for split, files in splits.items()}
    each = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    size = sum(entry["bytes"] for files in splits.values() for entry in files)
    missing = ", some missing" * manifest["missing"]
    what = (
        f"{sum(counts.values()):,} rows ({each}) of {manifest['values']:,} values{missing},"
        f" {size:,} bytes"
    )
    return f"{out}: {what}; next: {training_command(str(out))}"


def note_checked(root: Path, entries: Sequence[FileEntry]) -> None:
    """Record that files which this machine has just written need no check."""
    for entry in entries:
        build_once(checked_folder(root / entry["file"], entry), lambda _: None)


def checked_folder(path: Path, entry: FileEntry) -> Path:
    """Return the folder of the cache that exists once the file was checked."""
    known = key_of([str(path), path.stat().st_mtime_ns, entry])
    return cache_folder() / "checked" / known


def digest(manifest: Mapping[str, object]) -> str:
    """Return the SHA-256 of a manifest without its digest."""
    facts = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def training_command(path: str) -> str:
    """Return a command to train on a table, or on a folder of rows."""
    return f"distvae train table --data {shlex.quote(path)}"
