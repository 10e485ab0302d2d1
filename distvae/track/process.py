"""The process that sends the journal of one run to MLflow while another process trains.

MLflow takes seconds to import and to open a store, which training does not wait for.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distvae.files.checkout import PACKAGE
from distvae.track.store import Store

PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from distvae.track.sending import main
sys.exit(main(sys.argv[2]))
"""
"""The program of the process; -P keeps it from importing files of the current folder."""
NOTICE = b"."
"""A byte that says that the journal has new entries; the end of the input says that it is over."""
SENT, FAILED = 0, 3
"""The exit codes of a process that has sent everything, and of one that has said why it cannot."""


@dataclass
class SendingProcess:
    """A process that sends a journal when it is notified, and the rest of it at the end.

    It has a session of its own, so that Ctrl-C reaches the training alone. If the training is
    killed, its input ends, and it sends what was written until then.
    """

    process: "subprocess.Popen[bytes]"
    is_notified: bool = False

    @classmethod
    def start(cls, store: Store, folder: Path) -> "SendingProcess | None":
        """Start a process for a folder; return None where no process can be started."""
        command = [sys.executable, "-P", "-c", PROGRAM, str(PACKAGE.parent), str(folder)]
        environment = os.environ | {"MLFLOW_TRACKING_URI": store.uri}
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=environment, start_new_session=True
            )
        except OSError:
            return None
        os.set_blocking(_input(process), False)
        return cls(process)

    def notify(self) -> bool:
        """Say that there are new entries, and return whether the process still listens."""
        try:
            os.write(_input(self.process), NOTICE)
        except BlockingIOError:
            pass  # it has many notices waiting, and will find the entries
        except OSError:
            return False
        self.is_notified = True
        return True

    def finish(self) -> int:
        """Wait until everything was sent, and return the exit code."""
        _close_input(self.process)
        return self.process.wait()

    def release(self) -> None:
        """Wait until everything was sent; end the process at once if there is nothing to send."""
        if not self.is_notified:
            self.process.kill()
        self.finish()


def _input(process: "subprocess.Popen[bytes]") -> int:
    """Return the pipe to a process; raise `OSError` if it is closed."""
    assert process.stdin is not None
    if process.stdin.closed:
        raise BrokenPipeError
    return process.stdin.fileno()


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


@contextmanager
def sending_process(root: Path, folder: Path, wanted: bool) -> Iterator[SendingProcess | None]:
    """Start a process that sends the journal of a folder, if one is wanted, and release it."""
    process = SendingProcess.start(Store.find(root), folder) if wanted else None
    try:
        yield process
    finally:
        if process:
            process.release()
