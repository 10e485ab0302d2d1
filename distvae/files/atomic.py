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

    The file is on the disk before it gets its name, so a power cut leaves either the old or the new
    file.
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
    """Return a hidden temporary name for a file. It keeps the suffix, which tells libraries the
    format.
    """
    path = Path(name)
    return f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}"


def finished_name(name: str) -> str:
    """Return the final name of a file from its hidden temporary name, or ''."""
    found = PARTIAL.fullmatch(name)
    return found[1] + (found[2] or "") if found else ""


def delete_partials(path: Path) -> None:
    """Delete the temporary files that killed writers of this file have left beside it."""
    for each in path.parent.iterdir():
        if finished_name(each.name) == path.name:
            each.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
