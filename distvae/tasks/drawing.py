"""Draw pictures in a second process.

Importing matplotlib takes half a second, and drawing the pictures of a run takes a second. Training
starts the process at its beginning, and scores the model while the process draws.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from distvae.files.program import PACKAGE
from distvae.tasks.pictures.canvas import Drawing, draw_now

PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from distvae.tasks.drawing import main
main(int(sys.argv[2]))
"""
"""The program of the process. Option -P keeps it from importing files of the current folder."""
NICENESS = 5
"""The niceness of the process, so that it does not slow down training."""

Request = tuple[Drawing, Path]


@dataclass
class DrawingProcess:
    """A process that draws pictures in order.

    It has its own session, so that Ctrl-C reaches the training alone. It ends when the training
    process ends.
    """

    process: "subprocess.Popen[bytes]"
    connection: "Connection[Request, bool]"
    asked: list[Request] = field(default_factory=list)

    @classmethod
    def start(cls) -> "DrawingProcess | None":
        """Start a process; return None where no process can be started."""
        ours, theirs = Pipe()
        handle = theirs.fileno()
        command = [sys.executable, "-P", "-c", PROGRAM, str(PACKAGE.parent), str(handle)]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[handle], start_new_session=True
            )
        except OSError:
            ours.close()
            return None
        finally:
            theirs.close()
        return cls(process, ours)

    def draw(self, drawing: Drawing, file: Path) -> None:
        """Request a picture in a file."""
        self.asked.append((drawing, file))
        with suppress(OSError):  # `finish` draws the pictures that a dead process left out
            self.connection.send((drawing, file))

    def finish(self) -> None:
        """Wait for all pictures. A picture that failed is drawn here, where its error is raised."""
        for drawing, file in self.asked:
            if not self._is_drawn():
                draw_now(drawing, file)
        self.asked = []

    def _is_drawn(self) -> bool:
        """Wait for the next picture, and return whether the process drew it."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return False

    def release(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def drawing_process(wanted: bool) -> Iterator[DrawingProcess | None]:
    """Start a process that draws pictures if `wanted`, and end it with the block."""
    process = DrawingProcess.start() if wanted else None
    try:
        yield process
    finally:
        if process:
            process.release()


def main(handle: int) -> None:
    """Draw the requested pictures until the training process ends."""
    os.nice(NICENESS)
    connection: Connection[bool, Request] = Connection(handle)
    waiting: SimpleQueue[Request | None] = SimpleQueue()
    # a thread receives requests while a picture is drawn, so that a request returns at once
    Thread(target=_receive, args=(connection, waiting), daemon=True).start()
    _import_early()
    with connection:
        while request := waiting.get():
            connection.send(_try_to_draw(*request))


def _receive(
    connection: "Connection[bool, Request]", waiting: "SimpleQueue[Request | None]"
) -> None:
    """Put each request into the queue. Put None when the connection ends."""
    try:
        with suppress(EOFError, OSError):
            while True:
                waiting.put(connection.recv())
    finally:
        waiting.put(None)


def _import_early() -> None:
    """Import the packages for drawing before the first request."""
    # the same error is raised again, and reported, when a picture is drawn
    with suppress(Exception):
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401


def _try_to_draw(drawing: Drawing, file: Path) -> bool:
    """Draw a picture, and return whether that succeeded."""
    try:
        draw_now(drawing, file)
    except Exception:
        return False
    return True
