"""Folders of data, and the cache for what is computed from it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from distvae.files.paths import resolve_path
from distvae.files.refusal import Refusal


def find_data_folder(path: str, kind: str) -> Path | None:
    """Return the folder that a configuration names, otherwise $DISTVAE_DATA (or its sub-folder
    `kind`), otherwise None.
    """
    if path:
        return _existing(Path(path), "data.path")
    variable = os.environ.get("DISTVAE_DATA")
    if not variable:
        return None
    folder = _existing(Path(variable), "$DISTVAE_DATA")
    return folder / kind if (folder / kind).is_dir() else folder


def cache_folder() -> Path:
    """Return $DISTVAE_CACHE, otherwise $XDG_CACHE_HOME/distvae, otherwise ~/.cache/distvae."""
    if chosen := os.environ.get("DISTVAE_CACHE"):
        return resolve_path(chosen, "$DISTVAE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "distvae"


def _existing(path: Path, source: str) -> Path:
    folder = resolve_path(path, source)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        way = f"; 'distvae data check {path}' says how it can be used" if folder.is_file() else ""
        raise Refusal(f"{source}: {path} {problem}; a folder of data expected{way}")
    return folder


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a folder unless it is there. One process builds it while the others wait.

    It is built under another name and renamed when complete, so a killed or failed build leaves
    nothing behind.
    """
    from filelock import FileLock

    if folder.is_dir():
        return
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _build(folder, part, build)
    except OSError as error:
        raise Refusal(
            f"{folder.parent}: {error.strerror or error}; make room, or set DISTVAE_CACHE to"
            " another folder"
        ) from error


def _build(folder: Path, part: Path, build: Callable[[Path], None]) -> None:
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        build(part)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
