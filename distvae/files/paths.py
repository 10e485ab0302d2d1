"""Where on this machine things are: names that can be names, and folders that can be written
into.
"""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import DISK_FULL, Refusal

PATH_ERRORS = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)
"""What the system answers where the fault is with the place that was named."""
BESIDE = 40
"""Bytes by which the names of what is written beside a file, or in its place for a while, are
longer than its own.
"""
BELOW = 256
"""Bytes of the paths below a folder."""
NAME, PATH = 255, 4096
"""Bytes that a name and a path may have."""


def resolve_path(path: str | Path, source: str = "") -> Path:
    """Return a path without `~` and links; `source` is the setting that names it."""
    with refusing_bad_paths(
        f"{source}: {path}" if source else str(path), "a path of this machine expected"
    ):
        found = Path(path).expanduser().resolve()
        found.exists()
    return found


@contextmanager
def refusing_bad_paths(named: str, wanted: str) -> Iterator[None]:
    """Refuse a place that the system, or Python, does not take for one."""
    try:
        yield
    except Refusal:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # such as ~nobody, or links that go round in circles
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Refusal(f"{named}: {cause}; {wanted}") from error


def check_path_name(path: Path) -> None:
    """Refuse a name that nothing is to be written under: a URI, no text, or one that leaves no room
    for others.

    Others are those of what is written beside and below it.
    """
    if re.match(r"\w+:/", str(path)):
        raise Refusal(f"{path}: a URI; a place of this machine expected")
    if str(path).startswith("~"):
        raise Refusal(
            f"{path}: begins with '~', which the shell has not replaced; the whole path expected"
        )
    whole = path.absolute()
    str(whole).encode()
    longest = max(len(os.fsencode(part)) for part in whole.parts)
    if longest + BESIDE > NAME or len(os.fsencode(whole)) + BELOW > PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))


def is_writable(folder: Path) -> bool:
    """Return whether something can be made in a folder; it is gone at once.

    Nobody can make anything below /proc, whatever the rights there say.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".distvae-", dir=folder):
            return True
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return False
