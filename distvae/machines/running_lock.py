"""What runs on the head of a cluster, so that nobody restarts its Ray unawares."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import Refusal

RUNNING = "~/.distvae/running"
"""Held by every command that runs there, and gone with it whatever its end; it says what the latest
of them is.
"""


@contextmanager
def mark_running(what: str) -> Iterator[None]:
    """While this runs, others see that something does."""
    path = Path(RUNNING).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        file.truncate(0)
        file.write(f"{what}\n")
        file.flush()
        yield


def refuse_if_running() -> None:
    """Refuse to restart Ray where that would end what runs."""
    path = Path(RUNNING).expanduser()
    if not path.exists():
        return
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refusal(
                f"'{file.read().strip()}' runs on this head, and 'ray up' restarts Ray, which ends"
                " it. End it first where it was submitted (Ctrl-C saves what it did; the same"
                f" command goes on from there), or to restart all the same: rm {RUNNING}"
            ) from None
