"""Paths on this machine: checks of names, and of folders to write into."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import DISK_FAILED, DISK_FULL, Refusal, cause, shown

PATH_ERRORS = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)
"""System errors caused by the named path."""
MARGIN_OF_NAME = 40
"""The largest number of bytes that a temporary or neighbouring file adds to the name of a file."""
MARGIN_OF_PATH = 256
"""Bytes reserved for paths below a folder."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""The largest number of bytes in a name and in a path that the system allows."""


def given_path(value: object, named: str) -> Path:
    """Return the path in the argument with this name."""
    if not isinstance(value, str | os.PathLike):
        raise Refusal(f"{named}: {shown(value)}; a path expected")
    return Path(value)


def resolve_path(path: str | Path, source: str = "") -> Path:
    """Return a path without `~` and links. `source` is the setting with the path."""
    named = f"{source}: {path}" if source else str(path)
    with refusing_bad_paths(named, "a path of this machine expected"):
        found = Path(path).expanduser().resolve()
        found.exists()
    return found


@contextmanager
def refusing_bad_paths(named: str, expected: str) -> Iterator[None]:
    """Raise `Refusal` for a path that the system or Python does not accept."""
    try:
        yield
    except Refusal:
        raise
    # RuntimeError is raised for ~nobody and for links that form a circle
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or cause(error)
        raise Refusal(f"{named}: {reason}; {expected}") from error


def check_path_name(path: Path) -> None:
    """Raise an error for a path at which nothing should be written.

    Refused paths are URIs, an unexpanded `~`, names that are not text, and names too long for files
    beside or below the path.
    """
    if re.match(r"\w+:/", str(path)):
        uri = re.sub(":/+", "://", str(path), count=1)  # a `Path` has only one of the two slashes
        raise Refusal(f"{uri}: a URI; a place of this machine expected")
    if str(path).startswith("~"):
        raise Refusal(
            f"{path}: begins with '~', which the shell has not replaced; the whole path expected"
        )
    absolute = path.absolute()
    str(absolute).encode()
    longest = max(len(os.fsencode(part)) for part in absolute.parts)
    name_fits = longest + MARGIN_OF_NAME <= LONGEST_NAME
    path_fits = len(os.fsencode(absolute)) + MARGIN_OF_PATH <= LONGEST_PATH
    if not (name_fits and path_fits):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest existing folder above it."""
    return next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))


def is_writable(folder: Path) -> bool:
    """Return whether a file can be created in a folder, by creating and deleting a file.

    Permissions do not tell: nobody can create a file below /proc.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".distvae-", dir=folder):
            return True
    except OSError as error:
        if error.errno in (*DISK_FULL, *DISK_FAILED):
            raise
        return False
