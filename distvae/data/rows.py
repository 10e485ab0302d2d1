"""Rows of numbers: the Arrow files that `distvae ingest` wrote, memory-mapped."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distvae.config import RowsData
from distvae.data import folders
from distvae.data.dataset import Array, Dataset, FileOrArray, LazyRows, Rows, Stacked
from distvae.data.family import (
    DataFamily,
    Survey,
    Values,
    checked_config,
    count_rows,
    register,
)
from distvae.data.ingest import (
    FACTS,
    MANIFEST,
    VERSION,
    FileEntry,
    checked_folder,
    digest,
    ingest,
    training_command,
)
from distvae.data.tables import SUFFIXES, Table
from distvae.files.paths import require_memory, resolve_path
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import read_arrow
from distvae.files.untrusted import (
    Plain,
    Tree,
    read_json,
    refuse_strange_entries,
    require_regular_file,
)
from distvae.numerics.arrays import AnyArray, Facts

CHECKED_AT_ONCE = 2**32
"""Bytes of all files up to which all files are checked before training begins. Of larger data,
each worker checks the files that it reads.
"""
TABLE = "a table of numbers"
TABLES = "a folder of tables"
BLOCK = 2**16
"""Rows of a table that are read together."""


@register(RowsData)
class RowsFamily(DataFamily[RowsData]):
    """Rows of a table, or rows that `distvae ingest` placed in Arrow files."""

    values = Values(may_be_missing=True)
    reads_media = True

    def open(self, quiet: bool = False) -> Dataset:
        """Return the rows of a folder by split, mapped into memory.

        Names and sizes of the files are checked every time, checksums once per machine and whenever
        a file has changed. If the files are large, each is opened and checked when a row of it is
        read.
        """
        table = resolve_path(self.config.path)
        if is_table(table):
            root = self._ingested(table, quiet)
        else:
            expected = "a table, or a folder that 'distvae ingest' made, expected"
            root = folders.find_data_folder(self.config.path, "rows", expected)
        refuse_strange_entries(root)
        manifest = read_manifest(root)
        named: dict[str, list[FileEntry]] = manifest["splits"]
        every = [entry for part in named.values() for entry in part]
        _refuse_others(root, {entry["file"] for entry in every})
        values: int = manifest["values"]
        if (columns := self.config.columns) and len(columns) != values:
            raise Refusal(
                f"data.columns: {', '.join(columns)}, but {self.config.path} is a folder of rows of"
                f" {values} values; 'distvae ingest --columns' chooses columns"
            )
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
        place = table if is_table(table) else root
        return Dataset(root.name, "row", manifest["digest"], ordered, place)

    def _ingested(self, table: Path, quiet: bool) -> Path:
        """Return the folder in the cache with the rows of a table."""
        require_regular_file(table, TABLE)
        written, columns = table.stat(), self.config.columns
        version = folders.key_of([str(table), written.st_size, written.st_mtime_ns, columns])
        folder = folders.cache_folder() / "tables" / version

        def place(part: Path) -> None:
            ingest([table], part / table.stem, quiet=quiet, columns=columns)

        folders.build_once(folder, place)
        return folder / table.stem

    def rows_of(self, media: FileOrArray, shape: tuple[int, ...]) -> AnyArray:
        """Return the rows of a table, in its order, or an array as it is."""
        if not isinstance(media, Path):
            return media
        table = Table.open(media, self.config.columns)
        require_memory(media, 4 * table.rows * table.values, f"rows of {table.values:,} values")
        return np.concatenate([*table.blocks(BLOCK)])

    def media_of(self, rows: Array, media: FileOrArray, shape: tuple[int, ...]) -> Array:
        """Return the rows."""
        return rows

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return the survey of a table, of a folder of tables, or of a folder of rows."""
        return cls.examine(path, decoded=False)

    @classmethod
    def examine(
        cls, path: str, settings: Sequence[str] = (), decoded: bool = True
    ) -> Survey | None:
        """Return the same survey under some settings, after every row of a table was read."""
        place = Path(path)
        if is_table(place):
            config: RowsData = checked_config("rows", path, settings)
            table = Table.open(place, config.columns)
            if decoded:
                for _ in table.blocks(BLOCK):
                    pass
            facts: dict[str, Plain] = {"rows": table.rows, "values": table.values}
            return Survey(path, TABLE, "rows", {}, facts, settings=tuple(settings))
        if (place / MANIFEST).is_file():
            dataset = cls(RowsData(path=path)).open()
            counts = count_rows(dataset, "rows")
            return Survey(path, "rows of numbers", "rows", counts, {"values": dataset.dims})
        if place.is_dir() and (tables := _tables(place)):
            return Survey(path, TABLES, "rows", {}, {"tables": len(tables)})
        return None

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return a command to train on the rows; tables of a folder are ingested first."""
        if survey.layout != TABLES:
            return training_command(survey.path)
        files = " ".join(shlex.quote(str(file)) for file in _tables(Path(survey.path)))
        return f"distvae ingest {files} rows && {training_command('rows')}"


def _tables(folder: Path) -> list[Path]:
    """Return the files of a folder if all of them are tables; otherwise nothing."""
    files = sorted(place for place in folder.iterdir() if not place.name.startswith("."))
    return files if all(is_table(file) and file.is_file() for file in files) else []


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
        folders.build_once(checked_folder(self.path, self.entry), lambda _: self._refuse_altered())
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


def is_table(path: Path) -> bool:
    """Return whether a path names a table and no folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _check_all(parts: Sequence[FileRows], quiet: bool) -> None:
    """Open and check all files before training begins."""
    for part in parts:
        part.map()  # refuses damaged files with a better message
    opened = folders.map_in_order(FileRows.open, parts)
    found = folders.with_progress(opened, "Checksums of rows", len(parts), quiet)
    for part, rows in zip(parts, found, strict=True):
        part.mapped = rows


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


def _refuse_others(root: Path, named: set[str]) -> None:
    names = {path.name for path in root.glob("*.arrow") if not path.name.startswith(".")}
    others = sorted(names - named)
    if others:
        raise Refusal(
            f"{root / others[0]}: in no list of {MANIFEST}; the files of one ingest alone expected"
        )
