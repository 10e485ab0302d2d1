"""One sweep at a time in a folder: a lock that goes with the process that has it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.output import prepare_folder
from distvae.files.refusal import Refusal

LOCK = ".sweep.lock"
"""The file of a sweep's folder that is locked while the sweep goes on."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """While no other sweep goes on in a folder; one that was made and not used does not stay."""
    from filelock import FileLock, Timeout

    made = not out.exists()
    prepare_folder(out, force=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Refusal(
            f"{out}: another sweep is under way in it; another folder, or its end, expected"
        ) from error
    except OSError:  # a file system that knows no locks, where nobody can tell
        pass
    try:
        yield
    finally:
        if made and not occupied(out):
            shutil.rmtree(out, ignore_errors=True)
        lock.release()


def occupied(out: Path) -> bool:
    """Whether there is more in a folder than the lock."""
    return out.is_dir() and any(path.name != LOCK for path in out.iterdir())


def clear(out: Path) -> None:
    """Delete what is in a folder, but for the lock."""
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
