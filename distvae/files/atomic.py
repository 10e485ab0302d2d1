"""Replace files atomically: write under a temporary name, then rename."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial(\.[^.]*)?")
"""The names that `partial_name` returns."""


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` when the block ends without an error.

    The file is on the disk before it gets its name, so a power cut leaves the old one or the new.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_name(name: str) -> str:
    """Return a hidden name to write a file under; it keeps the suffix, which tells libraries the
    format.
    """
    path = Path(name)
    return f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}"


def finished_name(name: str) -> str:
    """Return the name that a file was to get which is written under a hidden one, or ''."""
    found = PARTIAL.fullmatch(name)
    return found[1] + (found[2] or "") if found else ""


def delete_partials(path: Path) -> None:
    """Delete what writers of this file that were killed have left beside it."""
    for each in path.parent.iterdir():
        if finished_name(each.name) == path.name:
            each.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
