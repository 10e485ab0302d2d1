"""A lock on the head of a cluster that shows whether a command runs there.

`ray up` restarts Ray, which would end that command.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.system.disk import is_locked, lock

LOCK_FILE = "~/.distvae/running"
"""The file that running commands lock; it holds the words of the one started last.

The kernel releases the lock however a command ends.
"""


@contextmanager
def mark_running(command: str) -> Iterator[None]:
    """Hold the lock while a command runs."""
    path = Path(LOCK_FILE).expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        lock(file.fileno(), shared=True)
        file.truncate(0)
        file.write(f"{command}\n")
        file.flush()
        yield


def refuse_if_running() -> None:
    """Raise a Refusal if a command holds the lock."""
    path = Path(LOCK_FILE).expanduser()
    if not path.exists():
        return
    with path.open("r+") as file:  # NFS locks alone only what is open for writing
        if is_locked(file.fileno()):
            raise Refusal(
                f"'{file.read().strip()}' runs on this head, and 'ray up' restarts Ray, which ends"
                " it. End it first where it was submitted (Ctrl-C saves its state; the same"
                f" command resumes it), or to restart all the same: rm {LOCK_FILE}"
            )
