"""Rows of numbers that 'distvae ingest' wrote to Arrow files, memory-mapped."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from distvae.config import RowsData
from distvae.data import files, folders
from distvae.data.dataset import Array, Dataset, Rows, stack
from distvae.data.tables import arrow
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import read_json

MANIFEST = "rows.json"
VERSION = 1


class FileEntry(TypedDict):
    """A file of rows in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str


def open_rows(config: RowsData, quiet: bool = False) -> Dataset:
    """Return the rows of a folder by split.

    Names and sizes of the files are checked every time, checksums once per machine and whenever a
    file has changed.
    """
    root = folders.find_data_folder(config.path, "rows")
    if root is None:
        raise Refusal(
            "data.path: empty, and $DISTVAE_DATA is not set; a folder that 'distvae ingest' made"
            " expected"
        )
    manifest = _read(root)
    named: dict[str, list[FileEntry]] = manifest["splits"]
    every = [entry for part in named.values() for entry in part]
    _refuse_others(root, {entry["file"] for entry in every})
    splits = {
        split: stack([_mapped(root, entry, manifest["values"]) for entry in part])
        for split, part in named.items()
    }
    _verify(root, every, quiet)
    return Dataset(root.name, "row", manifest["digest"], _filled(splits), root)


def digest(manifest: Mapping[str, object]) -> str:
    """Return the SHA-256 of a manifest without its digest."""
    facts = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(root: Path) -> dict[str, Any]:
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


def _verify(root: Path, named: list[FileEntry], quiet: bool) -> None:
    """Compare each file with its checksum, unless this machine has done so since it was last
    written.
    """
    paths = [root / entry["file"] for entry in named]
    facts = [
        (str(path), path.stat().st_mtime_ns, entry)
        for path, entry in zip(paths, named, strict=True)
    ]
    known = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folders.build_once(
        folders.cache_folder() / "checked" / known, lambda _: _refuse_altered(paths, named, quiet)
    )


def _refuse_altered(paths: list[Path], named: list[FileEntry], quiet: bool) -> None:
    found = files.with_progress(
        files.map_in_order(files.digest, paths), "Checksums of rows", len(paths), quiet
    )
    for path, entry, checksum in zip(paths, named, found, strict=True):
        if checksum != entry["sha256"]:
            raise Refusal(f"{path}: altered or damaged: its checksum is not the one in {MANIFEST}")


def _refuse_others(root: Path, named: set[str]) -> None:
    others = sorted({path.name for path in root.glob("*.arrow")} - named)
    if others:
        raise Refusal(
            f"{root / others[0]}: in no list of {MANIFEST}; the files of one ingest alone expected"
        )


def _mapped(root: Path, entry: FileEntry, values: int) -> Array:
    path = root / entry["file"]
    if not path.is_file():
        raise Refusal(f"{path}: missing; {MANIFEST} names it")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise Refusal(
            f"{path}: altered, or not copied whole: {size:,} bytes; {entry['bytes']:,} expected"
        )
    rows = arrow.read_arrow(path)
    if rows.shape != (entry["rows"], values):
        raise Refusal(f"{path}: {rows.shape} rows and values; {(entry['rows'], values)} expected")
    return rows


def _filled(splits: dict[str, Rows]) -> dict[str, Rows]:
    """Fill in missing splits: training rows validate, and validation rows test."""
    val = splits.get("val", splits["train"])
    return {"train": splits["train"], "val": val, "test": splits.get("test", val)}
