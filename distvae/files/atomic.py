"""Replace files atomically: write under a temporary name, then rename."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
