"""Files in a run folder by which a driver and its workers tell each other to stop."""

import time
from collections.abc import Callable

from distvae.files.storage import Folder
from distvae.machines.worker_group import POLL

STOP_FILE = "stop-{}"
"""A file in the run folder that asks the workers of an owner to stop after their batch."""
REFUSED_FILE = "refused-{}.json"
"""Why a worker of an owner cannot go on, and would not if it began again."""
LEFT = tuple(name.partition("{")[0] for name in (STOP_FILE, REFUSED_FILE))
"""How what an earlier owner left begins."""
AFAR = 2.0  # seconds between two looks at a run folder that is not in a file system of this machine


def request_stop(folder: Folder, owner: str) -> None:
    """Ask those who train for an owner to stop; whoever trains for another goes on."""
    folder.write(STOP_FILE.format(owner), b"")


def stop_requested(folder: Folder, owner: str) -> Callable[[], bool]:
    """Whether a file in a folder asks to stop, looked for now and then."""
    found, due = False, 0.0

    def look() -> bool:
        nonlocal found, due
        if not found and time.monotonic() >= due:
            found, due = folder.has(STOP_FILE.format(owner)), time.monotonic() + _poll(folder)
        return found

    return look


def _poll(folder: Folder) -> float:
    """Seconds between two looks at a folder."""
    return AFAR if folder.remote else POLL
