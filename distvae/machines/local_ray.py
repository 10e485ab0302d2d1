"""A Ray on this machine for one job: started, watched while it starts, and ended.

Ray's own start sits in calls that hear no signal, and waits for processes that have died. So it
happens in a program of its own (`distvae/machines/ray_head.py`), which is given up when it fails,
takes too long, or is no longer wanted.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from distvae.files.refusal import Refusal

PROGRAM = Path(__file__).with_name("ray_head.py")
ATTEMPTS = 3
LIMIT = 240.0
"""Seconds in which Ray has to stand, all attempts together."""
POLL = 0.1
"""Seconds between two looks at whether anybody asks to stop."""
REMEDY = (
    "less load or more memory expected, or one process (train without --workers), or --address of a"
    " Ray that runs"
)
"""What to do where Ray does not start."""
END = 20.0
"""Seconds that Ray has to end in before it is killed."""


class Local(NamedTuple):
    """A Ray that stands."""

    address: str
    folder: Path
    """Ray's own, for its logs and sockets."""
    program: "subprocess.Popen[bytes]"
    """What holds Ray, and ends with it."""

    def gone(self) -> bool:
        """Return whether Ray has ended."""
        return self.program.poll() is not None


class NotStarted(Exception):
    """An attempt has failed; another one may not."""


@contextmanager
def started(cpus: int, memory: int, stop: Callable[[], object]) -> Iterator[Local]:
    """Start a Ray with so many processors and bytes of object store; end it when left.

    Raise KeyboardInterrupt when asked to stop before it stands.
    """
    local = _attempts(cpus, memory, stop)
    try:
        yield local
    finally:
        _end(local.program)


def _attempts(cpus: int, memory: int, stop: Callable[[], object]) -> Local:
    """Start Ray, again if the first time fails; refuse when it does not start."""
    deadline, reason = time.monotonic() + LIMIT, ""
    for _ in range(ATTEMPTS):
        program = _launch(cpus, memory)
        try:
            return _awaited(program, deadline, stop)
        except NotStarted as error:
            reason = str(error)
            _end(program)
            if time.monotonic() >= deadline:
                break
        except BaseException:
            _end(program)
            raise
    raise Refusal(f"Ray: does not start on this machine ({reason}); {REMEDY}")


def _launch(cpus: int, memory: int) -> "subprocess.Popen[bytes]":
    """Start the program, in a session of its own, which no signal of a terminal reaches."""
    words = [sys.executable, "-P", str(PROGRAM), str(cpus), str(memory)]
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _awaited(
    program: "subprocess.Popen[bytes]", deadline: float, stop: Callable[[], object]
) -> Local:
    """Wait for what the program tells of Ray."""
    assert program.stdout
    told = b""
    while not told.endswith(b"\n"):
        if stop():
            raise KeyboardInterrupt
        if time.monotonic() >= deadline:
            raise NotStarted(f"it has not answered for {LIMIT:.0f} s")
        if select.select([program.stdout], [], [], POLL)[0]:
            part = os.read(program.stdout.fileno(), 4096)
            if not part:
                raise NotStarted("its program has ended without a word")
            told += part
    facts = json.loads(told)
    if "failed" in facts:
        raise NotStarted(facts["failed"])
    return Local(facts["address"], Path(facts["folder"]) / "ray", program)


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Have the program end Ray; kill all of its session when that takes too long."""
    assert program.stdin
    assert program.stdout
    with suppress(OSError):
        program.stdin.close()
    try:
        program.wait(END)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    finally:
        program.stdout.close()
