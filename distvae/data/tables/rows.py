"""Rows of numbers that 'distvae ingest' wrote to Arrow files, memory-mapped."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from distvae.config import RowsData
from distvae.data import files, folders
from distvae.data.dataset import Array, Dataset, LazyRows, Rows, Stacked
from distvae.data.tables import arrow
from distvae.files.plain import Tree
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import read_json, refuse_strange_entries
from distvae.numerics.facts import Facts

MANIFEST = "rows.json"
FACTS = "facts.json"
VERSION = 1
CHECKED_AT_ONCE = 2**32
"""Bytes of all files that are checked before training begins. Of more, each worker checks those
that it reads.
"""


class FileEntry(TypedDict):
    """A file of rows in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str


def open_rows(config: RowsData, quiet: bool = False) -> Dataset:
    """Return the rows of a folder by split.

    Names and sizes of the files are checked every time, checksums once per machine and whenever a
    file has changed. If the files are large, each is opened and checked when a row of it is read.
    """
    root = folders.find_data_folder(config.path, "rows")
    if root is None:
        raise Refusal(
            "data.path: empty, and $DISTVAE_DATA is not set; a folder that 'distvae ingest' made"
            " expected"
        )
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
    splits = {split: Stacked(files, facts.get(split)) for split, files in parts.items()}
    return Dataset(root.name, "row", manifest["digest"], _filled(splits), root)


class FileRows(LazyRows):
    """The rows of a file, which is opened when one of them is read."""

    def __init__(self, path: Path, entry: FileEntry, values: int) -> None:
        _refuse_size(path, entry)
        self.path, self.entry = path, entry
        self.shape = (entry["rows"], values)
        self.mapped: Array | None = None

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> Array:
        if self.mapped is None:
            self.mapped = self.open()
        return self.mapped[rows]

    def open(self) -> Array:
        """Return the rows, mapped into memory.

        They are compared with their checksum, unless this machine did since they were written.
        """
        mapped = self.map()
        folders.build_once(_checked(self.path, self.entry), lambda _: self._refuse_altered())
        return mapped

    def map(self) -> Array:
        """Return the rows, mapped into memory, of a file that may be damaged."""
        rows = arrow.read_arrow(self.path)
        if rows.shape != self.shape:
            raise Refusal(f"{self.path}: {rows.shape} rows and values; {self.shape} expected")
        return rows

    def _refuse_altered(self) -> None:
        if files.digest(self.path) != self.entry["sha256"]:
            raise Refusal(
                f"{self.path}: altered or damaged: its checksum is not the one in {MANIFEST}"
            )


def _check_all(parts: Sequence[FileRows], quiet: bool) -> None:
    """Open and check all files before training begins."""
    for part in parts:
        part.map()  # which says what is wrong, if anything
    opened = files.map_in_order(FileRows.open, parts)
    found = files.with_progress(opened, "Checksums of rows", len(parts), quiet)
    for part, rows in zip(parts, found, strict=True):
        part.mapped = rows


def note_checked(root: Path, entries: Sequence[FileEntry]) -> None:
    """Record that files are as they should be, which this machine has just written."""
    for entry in entries:
        folders.build_once(_checked(root / entry["file"], entry), lambda _: None)


def _checked(path: Path, entry: FileEntry) -> Path:
    """Return the folder of the cache that is there once the file was checked."""
    facts = [str(path), path.stat().st_mtime_ns, entry]
    known = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return folders.cache_folder() / "checked" / known


def _read_facts(root: Path, rows: str) -> dict[str, Facts]:
    """Return what is known of each split, nothing in folders that are older than such facts."""
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
    """Return what 'distvae ingest' wrote about a folder; refuse what it did not write."""
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
    """Return True if a manifest has all the fields that are read, with the right types."""
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
    """Return a command to train on a folder of rows, which may be in any units."""
    settings = "data.kind=rows model.likelihood=gaussian estep.input=standard"
    return f"distvae train mnist-vae {settings} --data {shlex.quote(folder)}"


def _refuse_others(root: Path, named: set[str]) -> None:
    names = {path.name for path in root.glob("*.arrow") if not path.name.startswith(".")}
    others = sorted(names - named)
    if others:
        raise Refusal(
            f"{root / others[0]}: in no list of {MANIFEST}; the files of one ingest alone expected"
        )


def _refuse_size(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise Refusal(f"{path}: missing; {MANIFEST} names it")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise Refusal(
            f"{path}: altered, or not copied whole: {size:,} bytes; {entry['bytes']:,} expected"
        )


def _filled(splits: Mapping[str, Rows]) -> dict[str, Rows]:
    """Fill in missing splits: training rows validate, and validation rows test."""
    val = splits.get("val", splits["train"])
    return {"train": splits["train"], "val": val, "test": splits.get("test", val)}
