"""Data on a storage that many machines share. Each machine copies it to its own disk once."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distvae.config import DataConfig
from distvae.data.folders import build_once, cache_folder
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder, without_password

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

Settings = TypeVar("Settings", bound=DataConfig)


def is_remote(path: str) -> bool:
    """Return True for a URI."""
    return "://" in path


def fetch(config: Settings) -> Settings:
    """Return the settings with a path on this machine. Data at a URI is copied here first."""
    return replace(config, path=local_path(config.path)) if is_remote(config.path) else config


def local_path(path: str) -> str:
    """Return a path on this machine. Data at a URI is copied here first."""
    return str(download(path)) if is_remote(path) else path


def download(uri: str) -> Path:
    """Copy the folder or file at a URI to the cache, unless its present version is there already;
    return the copy.
    """
    if without_password(uri) != uri:
        advice = (
            "names and passwords belong in the environment, for runs keep the path of their data"
        )
        raise Refusal(f"data.path: {Folder(uri)}: {advice}")
    source = Folder(uri)
    files = _list_remote_files(source.with_short_timeout())
    known = hashlib.sha256(json.dumps([str(source), files]).encode()).hexdigest()[:16]
    folder, name = (
        cache_folder() / "data" / known,
        source.path.rstrip("/").rpartition("/")[2],
    )
    build_once(folder, lambda part: _copy(source, part / name, files))
    return folder / name


def _list_remote_files(source: Folder) -> list[tuple[str, int, str]]:
    """Return every file with its path below, its size, and when it was written."""
    from pyarrow.fs import FileSelector, FileType

    try:
        (itself,) = source.system.get_file_info([source.path])
        below = (
            source.system.get_file_info(FileSelector(source.path, recursive=True))
            if itself.type != FileType.File
            else []
        )
    except OSError as error:
        raise Refusal(
            f"data.path: {source}: {cause(error)}; a folder or file that can be read expected"
        ) from error
    found = (
        [itself]
        if itself.type == FileType.File
        else [info for info in below if info.type == FileType.File]
    )
    if not found:
        raise Refusal(f"data.path: {source}: holds no files; a folder of data expected")
    return sorted(
        (info.path[len(source.path) :].lstrip("/"), int(info.size), _written(info))
        for info in found
    )


def _written(info: "FileInfo") -> str:
    return info.mtime.isoformat() if info.mtime else ""


def _copy(source: Folder, target: Path, files: list[tuple[str, int, str]]) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    for folder in {(target / name).parent for name, _, _ in files}:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        copy_files(
            source.path,
            str(target),
            source_filesystem=source.system,
            destination_filesystem=LocalFileSystem(),
        )
    except OSError as error:
        raise Refusal(
            f"data.path: {source}: {cause(error)}; data that can be brought to"
            f" {target.parent.parent} expected"
        ) from error
