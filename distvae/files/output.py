"""Files that appear whole or not at all, and refusals before anything is computed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distvae.files.paths import check_path_name, is_writable, nearest_existing, refusing_bad_paths
from distvae.files.refusal import Refusal, shown


def check_new_file(path: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Refuse a file that cannot or should not be written."""
    if path.suffix.lower() not in suffixes:
        raise Refusal(
            f"{path}: {shown(path.suffix)} is no kind of file written here; {' or '.join(suffixes)}"
            " expected"
        )
    check_writable_file(path)
    if path.exists() and not force:
        raise Refusal(f"{path}: exists; another name or --force expected")


def check_writable_file(path: Path) -> None:
    """Refuse a file that cannot be written where it is wanted, whatever is there now."""
    with refusing_bad_paths(str(path), "another name expected"):
        check_path_name(path)
        if path.is_dir():
            raise Refusal(f"{path}: a folder; the name of a file expected")
        if not (path.parent.is_dir() and is_writable(path.parent)):
            raise Refusal(
                f"{path}: cannot write into {path.parent}; an existing, writable folder expected"
            )


def check_writable_folder(folder: Path) -> None:
    """Refuse a folder that can be neither made nor written into; nothing is left of what is made to
    see that.
    """
    with refusing_bad_paths(str(folder), "another name expected"):
        check_path_name(folder)
        there = nearest_existing(folder)
        if not (there.is_dir() and is_writable(there)):
            raise Refusal(
                f"{folder}: cannot write into {there}; a writable folder, or one that can be made,"
                " expected"
            )


def prepare_folder(path: Path, force: bool) -> None:
    """Make a folder for several files; one that holds something is refused unless it may be
    overwritten.
    """
    with refusing_bad_paths(str(path), "another name expected"):
        if path.is_dir() and any(path.iterdir()) and not force:
            raise Refusal(f"{path}: exists and is not empty; another name or --force expected")
    make_folder(path)


def make_folder(path: Path) -> None:
    """Make a folder that can be written into, where there is none."""
    with refusing_bad_paths(str(path), "a folder that can be made expected"):
        check_path_name(path)
        path.mkdir(parents=True, exist_ok=True)
        if not is_writable(path):
            raise Refusal(f"{path}: cannot be written into; a writable folder expected")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary name for a file, which takes its place when the block ends well; into a device it
    is copied.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    special = path.exists() and not path.is_file()
    if special:
        temporary = Path(tempfile.gettempdir()) / temporary.name
    try:
        yield temporary
        if special:
            path.write_bytes(temporary.read_bytes())
        else:
            temporary.replace(path)
    except OSError as error:
        raise Refusal(
            f"{path}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
