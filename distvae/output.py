"""Files that appear whole or not at all, and refusals before anything is computed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distvae.refusal import Refusal


def claim(path: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Refuse a file that cannot or should not be written."""
    if path.suffix.lower() not in suffixes:
        raise Refusal(f"{path}: '{path.suffix}' is no kind of file written here; {' or '.join(suffixes)} expected")
    if path.is_dir() or (path.exists() and not force):
        raise Refusal(f"{path}: exists; another name or --force expected")
    claim_name(path)


def claim_name(path: Path) -> None:
    """Refuse a file that cannot be written where it is wanted, whatever is there now."""
    if path.is_dir():
        raise Refusal(f"{path}: a folder; the name of a file expected")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refusal(f"{path}: cannot write into {path.parent}; an existing, writable folder expected")


def claim_place(folder: Path) -> None:
    """Refuse a folder that can be neither made nor written into; nothing is made yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.access(place, os.F_OK))
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise Refusal(f"{folder}: cannot write into {there}; a writable folder, or one that can be made, expected")


def claim_folder(path: Path, force: bool) -> None:
    """Make a folder for several files; one that holds something is refused unless it may be overwritten."""
    if path.is_dir() and any(path.iterdir()) and not force:
        raise Refusal(f"{path}: exists and is not empty; another name or --force expected")
    make(path)


def make(path: Path) -> None:
    """Make a folder that can be written into, where there is none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; a folder that can be made expected") from error
    if not os.access(path, os.W_OK):
        raise Refusal(f"{path}: cannot be written into; a writable folder expected")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name for a file, which takes its place when the block ends well; into a device it is copied."""
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
        raise Refusal(f"{path}: {error.strerror or error}; a disk with room and a writable folder expected") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
