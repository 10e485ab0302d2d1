"""Files that appear whole or not at all, and refusals before anything is computed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.refusal import Refusal


def claim(path: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Refuse a file that cannot or should not be written."""
    if path.suffix.lower() not in suffixes:
        raise Refusal(f"{path}: '{path.suffix}' is no kind of file written here; {' or '.join(suffixes)} expected")
    if path.is_dir() or (path.exists() and not force):
        raise Refusal(f"{path}: exists; another name or --force expected")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refusal(f"{path}: cannot write into {path.parent}; an existing, writable folder expected")


def claim_folder(path: Path, force: bool) -> None:
    """Make a folder for several files; one that holds something is refused unless it may be overwritten."""
    if path.is_dir() and any(path.iterdir()) and not force:
        raise Refusal(f"{path}: exists and is not empty; another name or --force expected")
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
        temporary.unlink(missing_ok=True)
