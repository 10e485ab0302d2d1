"""A Ray on this machine for one job: started, watched, and ended.

Ray's own start spends its time in calls that receive no signal, and waits for processes that have
ended. It therefore runs in a program of its own (`ray_head.py`), which is ended when it fails,
takes too long, or is no longer wanted.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from distvae.files.refusal import Refusal
from distvae.machines.session.ray_head import CONTINUATION

PROGRAM = Path(__file__).with_name("ray_head.py")
ATTEMPTS = 3
START_SECONDS = 240.0
"""Seconds in which Ray has to start, all attempts together."""
POLL_SECONDS = 0.1
"""Seconds between two calls of `stop`."""
REMEDY = (
    "less load or more memory expected, or one process (train without --workers), or --address of a"
    " Ray that runs"
)
"""What to do if Ray does not start."""
END_SECONDS = 20.0
"""Seconds in which Ray has to end before it is killed."""


class LocalRay(NamedTuple):
    """A private Ray that has started."""

    address: str
    folder: Path
    """Ray's folder for logs and sockets."""
    program: "subprocess.Popen[bytes]"
    """The program that holds Ray's processes."""

    def has_ended(self) -> bool:
        """Return whether Ray has ended."""
        return self.program.poll() is not None


class StartFailed(Exception):
    """An attempt to start Ray failed; another one may not."""


@contextmanager
def local_ray(cpus: int, object_store_bytes: int, stop: Callable[[], object]) -> Iterator[LocalRay]:
    """Start a Ray, and end it when the context is left.

    Raise KeyboardInterrupt if `stop` returns true before it has started.
    """
    local = _start(cpus, object_store_bytes, stop)
    try:
        yield local
    finally:
        _end(local.program)


@contextmanager
def exit_when_it_ends(local: LocalRay) -> Iterator[None]:
    """End this process if a private Ray ends before the context is left.

    Ray's own client would end it too, but without saying so or only after a minute.
    """
    left = threading.Event()
    watch = threading.Thread(target=_exit_at_end, args=(local, left), daemon=True)
    watch.start()
    try:
        yield
    finally:
        left.set()
        watch.join()


def _exit_at_end(local: LocalRay, left: threading.Event) -> None:
    """End this process when Ray has ended, unless the context is left before."""
    output = local.program.stdout
    assert output
    while not left.wait(POLL_SECONDS):
        if local.has_ended():
            if not select.select([output], [], [], 0)[0] or not os.read(output.fileno(), 1):
                print(f"distvae: Ray was killed; {CONTINUATION}", file=sys.stderr, flush=True)
                _kill_session(local.program)
            os._exit(1)


def _start(cpus: int, object_store_bytes: int, stop: Callable[[], object]) -> LocalRay:
    """Start Ray in at most `ATTEMPTS` attempts; raise a Refusal if all of them fail."""
    deadline = time.monotonic() + START_SECONDS
    reason = ""
    for _ in range(ATTEMPTS):
        program = _launch(cpus, object_store_bytes)
        try:
            return _wait_for_start(program, deadline, stop)
        except StartFailed as error:
            reason = str(error)
            _end(program)
            if time.monotonic() >= deadline:
                break
        except BaseException:
            _end(program)
            raise
    raise Refusal(f"Ray: does not start on this machine ({reason}); {REMEDY}")


def _launch(cpus: int, object_store_bytes: int) -> "subprocess.Popen[bytes]":
    """Start the program in a session of its own, so that a terminal's signals do not reach it.

    It writes to this process's standard error if Ray ends unexpectedly.
    """
    command = [sys.executable, "-P", str(PROGRAM), str(cpus), str(object_store_bytes)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _wait_for_start(
    program: "subprocess.Popen[bytes]", deadline: float, stop: Callable[[], object]
) -> LocalRay:
    """Wait until the program reports that Ray has started."""
    assert program.stdout
    output = b""
    while not output.endswith(b"\n"):
        if stop():
            raise KeyboardInterrupt
        if time.monotonic() >= deadline:
            raise StartFailed(f"no answer for {START_SECONDS:.0f} s")
        if select.select([program.stdout], [], [], POLL_SECONDS)[0]:
            part = os.read(program.stdout.fileno(), 4096)
            if not part:
                raise StartFailed("its program ended without a message")
            output += part
    report = json.loads(output)
    if "failed" in report:
        raise StartFailed(report["failed"])
    return LocalRay(report["address"], Path(report["folder"]) / "ray", program)


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Have the program end Ray; kill its session if that takes too long."""
    assert program.stdin
    assert program.stdout
    with suppress(OSError):
        program.stdin.write(b"end")
        program.stdin.close()
    try:
        program.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        _kill_session(program)
        program.wait()
    finally:
        _wait_for_end_of_output(program.stdout)
        program.stdout.close()


def _kill_session(program: "subprocess.Popen[bytes]") -> None:
    """Kill the program and Ray's processes."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def _wait_for_end_of_output(pipe: IO[bytes]) -> None:
    """Wait until the program's child, which removes Ray's folder, has closed a pipe."""
    deadline = time.monotonic() + END_SECONDS
    while (seconds := deadline - time.monotonic()) > 0 and select.select([pipe], [], [], seconds)[
        0
    ]:
        if not os.read(pipe.fileno(), 4096):
            return
