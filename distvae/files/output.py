"""Check the destination of results before computing them, and write them atomically."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.atomic import partial_name, replaced_file
from distvae.files.paths import check_path_name, is_writable, nearest_existing, refusing_bad_paths
from distvae.files.refusal import Refusal, shown


def check_new_file(path: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Raise `Refusal` if a file cannot be written, or has another suffix, or exists already."""
    if path.suffix.lower() not in suffixes:
        raise Refusal(
            f"{path}: {shown(path.suffix)} is no kind of file for this result;"
            f" {' or '.join(suffixes)} expected"
        )
    check_writable_file(path)
    if path.exists() and not force:
        raise Refusal(f"{path}: exists; another name or --force expected")


def check_writable_file(path: Path) -> None:
    """Raise `Refusal` if no file can be written at the path. An existing file is accepted."""
    with refusing_bad_paths(str(path), "another name expected"):
        check_path_name(path)
        if path.is_dir():
            raise Refusal(f"{path}: a folder; the name of a file expected")
        if not (path.parent.is_dir() and is_writable(path.parent)):
            raise Refusal(
                f"{path}: cannot write into {path.parent}; an existing, writable folder expected"
            )


def check_writable_folder(folder: Path) -> None:
    """Raise `Refusal` if a folder can be neither created nor written into. Leave nothing behind."""
    with refusing_bad_paths(str(folder), "another name expected"):
        check_path_name(folder)
        existing = nearest_existing(folder)
        if not (existing.is_dir() and is_writable(existing)):
            raise Refusal(
                f"{folder}: cannot write into {existing}; a writable folder, or one that can be"
                " made, expected"
            )


def prepare_folder(path: Path, force: bool) -> None:
    """Create a folder for several files. Refuse a folder that is not empty, unless `force`."""
    with refusing_bad_paths(str(path), "another name expected"):
        if path.is_dir() and any(path.iterdir()) and not force:
            raise Refusal(f"{path}: exists and is not empty; another name or --force expected")
    make_folder(path)


def make_folder(path: Path) -> None:
    """Create a folder if it does not exist, and check that it can be written into."""
    with refusing_bad_paths(str(path), "a folder that can be made expected"):
        check_path_name(path)
        path.mkdir(parents=True, exist_ok=True)
        if not is_writable(path):
            raise Refusal(f"{path}: cannot be written into; a writable folder expected")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` when the block ends without an error.

    A device or a pipe is not replaced: the content is copied into it. An `OSError` becomes a
    `Refusal` that names the file.
    """
    is_special = path.exists() and not path.is_file()
    writing = _copied_into(path) if is_special else replaced_file(path)
    try:
        with writing as temporary:
            yield temporary
    except OSError as error:
        raise Refusal(
            f"{path}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error


@contextmanager
def _copied_into(special: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        temporary = Path(scratch) / partial_name(special.name)
        yield temporary
        special.write_bytes(temporary.read_bytes())
