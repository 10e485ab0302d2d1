"""Rows of numbers that 'distvae ingest' placed in Arrow files: mapped, and never all of them in memory."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict

from distvae.config import RowsData
from distvae.data import arrow, folders
from distvae.data.dataset import Array, Dataset, Rows, stack
from distvae.refusal import Refusal

MANIFEST = "rows.json"
VERSION = 1


class Kept(TypedDict):
    """A file of rows, as the manifest names it."""

    file: str
    rows: int
    bytes: int
    sha256: str


def open_rows(config: RowsData) -> Dataset:
    """The rows of a folder by split. Names and sizes of its files are checked, their content is not read."""
    root = folders.given(config.path, "rows")
    if root is None:
        raise Refusal("data.path: empty, and $DISTVAE_DATA is not set; a folder that 'distvae ingest' made expected")
    manifest = _read(root)
    named: dict[str, list[Kept]] = manifest["splits"]
    _refuse_others(root, {kept["file"] for files in named.values() for kept in files})
    splits = {
        split: stack([_mapped(root, kept, manifest["values"]) for kept in files]) for split, files in named.items()
    }
    return Dataset(root.name, "row", manifest["digest"], _filled(splits), root)


def digest(manifest: dict[str, Any]) -> str:
    """The SHA-256 of all that a manifest says, itself left out."""
    facts = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not path.is_file():
        raise Refusal(f"{root}: holds no {MANIFEST}; a folder that 'distvae ingest SOURCE... OUT' made expected")
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        version, whole = manifest.get("version"), manifest.get("digest") == digest(manifest)
    except (ValueError, AttributeError) as error:
        raise Refusal(f"{path}: not a manifest ({error}); as 'distvae ingest' wrote it expected") from error
    if version != VERSION:
        raise Refusal(f"{path}: of format {version}, and this distvae reads {VERSION}; use the one that wrote it")
    if not whole:
        raise Refusal(f"{path}: altered or damaged: its digest is not that of its content")
    return manifest


def _refuse_others(root: Path, named: set[str]) -> None:
    others = sorted({path.name for path in root.glob("*.arrow")} - named)
    if others:
        raise Refusal(f"{root / others[0]}: in no list of {MANIFEST}; the files of one ingest alone expected")


def _mapped(root: Path, kept: Kept, values: int) -> Array:
    path = root / kept["file"]
    if not path.is_file():
        raise Refusal(f"{path}: missing; {MANIFEST} names it")
    size = path.stat().st_size
    if size != kept["bytes"]:
        raise Refusal(f"{path}: altered, or not copied whole: {size:,} bytes; {kept['bytes']:,} expected")
    try:
        rows = arrow.read(path)
    except (OSError, ValueError) as error:
        raise Refusal(f"{path}: altered or damaged ({error}); as 'distvae ingest' wrote it expected") from error
    if rows.shape != (kept["rows"], values):
        raise Refusal(f"{path}: {rows.shape} rows and values; {(kept['rows'], values)} expected")
    return rows


def _filled(splits: dict[str, Rows]) -> dict[str, Rows]:
    """Without rows of their own, those to train on validate, and those that validate test."""
    val = splits.get("val", splits["train"])
    return {"train": splits["train"], "val": val, "test": splits.get("test", val)}
