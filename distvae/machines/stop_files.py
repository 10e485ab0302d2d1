"""Files in a run folder by which a driver and its workers reach each other."""

import json
import time
import traceback
from collections.abc import Callable, Iterator

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.train.run_folder import TakenOver
from distvae.train.stopping import Diverged

STOP_FILE = "stop-{}"
"""A file that asks the workers of an owner to stop after their batch."""
WORKER_ERROR_FILE = "refused-{}.json"
"""The error of a worker that would occur again after a restart."""
MESSAGES_FILE = "messages-{}.txt"
"""Lines that workers of an owner tell the user."""
POLL_LOCAL, POLL_REMOTE = 0.3, 2.0
"""Seconds between two looks at a folder on a disk of this machine, or elsewhere."""
PREFIXES = tuple(name.partition("{")[0] for name in (STOP_FILE, WORKER_ERROR_FILE, MESSAGES_FILE))


def delete_stop_files(folder: Folder) -> None:
    """Delete the files that earlier owners left."""
    for name in folder.list_files():
        if name.lstrip(".").startswith(PREFIXES):
            folder.delete(name)


def request_stop(folder: Folder, owner: str) -> None:
    """Ask the workers of an owner to stop; workers of other owners go on."""
    folder.write(STOP_FILE.format(owner), b"")


def cancel_stop(folder: Folder, owner: str) -> None:
    """Delete the request to stop, if there is one."""
    folder.delete(STOP_FILE.format(owner))


def stop_requested(folder: Folder, owner: str) -> Callable[[], bool]:
    """Return a function that tells whether a stop was requested, looking now and then."""
    found, next_look = False, 0.0

    def look() -> bool:
        nonlocal found, next_look
        if not found and time.monotonic() >= next_look:
            found = folder.has(STOP_FILE.format(owner))
            next_look = time.monotonic() + poll_seconds(folder)
        return found

    return look


def poll_seconds(folder: Folder) -> float:
    """Return the seconds between two looks at a folder."""
    return POLL_REMOTE if folder.remote else POLL_LOCAL


def write_worker_error(folder: Folder, owner: str, error: Exception) -> None:
    """Write an error for the driver, with the traceback of one that nobody foresaw."""
    text = str(error)
    if not isinstance(error, (Refusal, Diverged)):
        text = "".join(traceback.format_exception(error))
    record = json.dumps({"kind": type(error).__name__, "text": text})
    folder.write(WORKER_ERROR_FILE.format(owner), record.encode())


def has_worker_error(folder: Folder, owner: str) -> bool:
    """Return whether a worker of an owner wrote an error."""
    return folder.has(WORKER_ERROR_FILE.format(owner))


def raise_worker_error(folder: Folder, owner: str) -> None:
    """Raise the error that a worker wrote, if there is one, and delete its file."""
    if not has_worker_error(folder, owner):
        return
    name = WORKER_ERROR_FILE.format(owner)
    record = json.loads(folder.read(name))
    folder.delete(name)
    foreseen: tuple[type[Exception], ...] = (Refusal, TakenOver, Diverged)
    for kind in foreseen:
        if kind.__name__ == record["kind"]:
            raise kind(record["text"])
    raise RuntimeError(record["text"])


def say(folder: Folder, owner: str, text: str) -> None:
    """Tell the user a line."""
    folder.append(MESSAGES_FILE.format(owner), f"{text}\n".encode())


class WorkerMessages:
    """The lines that workers tell the user."""

    def __init__(self, folder: Folder, owner: str) -> None:
        self.folder, self.name = folder, MESSAGES_FILE.format(owner)
        self.size = 0

    def read(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        if (size := self.folder.size(self.name)) > self.size:
            new = self.folder.read(self.name)[self.size : size]
            self.size = size
            yield from new.decode().splitlines()

    def delete(self) -> None:
        """Delete the file of the lines."""
        self.folder.delete(self.name)
