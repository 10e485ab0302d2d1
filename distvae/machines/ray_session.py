"""Ray: one that runs already, or one on this machine for a single job - its own, closed to others,
gone afterwards.
"""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal
from distvae.machines.local_ray import REMEDY, Local, started
from distvae.machines.ray_head import PREFIX

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # workers train; they are not in the way of anybody
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # who asked for no GPU sees none
    # which an epoch waits for, be it as short as it may
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of data stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial has its figures only at its end
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # trials are asked to stop, and keep what they did
}
REACHED = 10.0  # seconds in which a machine has to answer
OBJECT_STORE_BYTES = (
    150 * 2**20
)  # of Ray's object store: reports of epochs are all that passes through it


PATIENCE = 5.0
"""Seconds from a signal that asks to stop to the end of a process that hears it while it joins a
Ray.
"""
POLL = 0.2
"""Seconds between two looks at whether a Ray that is being joined is still there."""
WIDTH = 120
"""Characters of a message of Ray that are shown."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


def never_stop() -> bool:
    """Return that nobody asks to stop."""
    return False


@contextmanager
def ray_session(
    address: str | None,
    cpus: int,
    memory: int = OBJECT_STORE_BYTES,
    stop: Callable[[], object] = never_stop,
) -> Iterator[Any]:
    """Join the Ray at an address, or without one a new one on this machine with so many processors.

    Raise KeyboardInterrupt when asked to stop before it is joined.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with (
            started(cpus, memory, stop) as local,
            _inside(partial(_join_local, local), stop, local.gone) as ray,
        ):
            yield ray
    else:
        with _inside(partial(_join, address), stop, never_stop) as ray:
            yield ray


@contextmanager
def _inside(
    join: Callable[[Any], None], stop: Callable[[], object], gone: Callable[[], bool]
) -> Iterator[Any]:
    """Join a Ray, and leave it afterwards."""
    import ray

    with _own_signals(), _heard(gone):
        join(ray)
    brief()
    try:
        if stop():
            raise KeyboardInterrupt
        yield ray
    finally:
        ray.shutdown()


def brief() -> None:
    """Have Ray's messages told in a line each, on standard error; all of a longer one goes to a
    file of Ray's logs.
    """
    from ray._private import worker

    logs = Path(worker._global_node.get_logs_dir_path()) / f"told-{os.getpid()}.txt"
    worker.print_to_stdstream = lambda data, **_: _tell("\n".join(data["lines"]), logs)


def _tell(text: str, file: Path) -> None:
    """Say the first line of a message, and append the message to a file."""
    first, _, more = text.strip().partition("\n")
    with suppress(OSError), file.open("a") as log:
        log.write(f"{text}\n")
    shown = first if len(first) <= WIDTH else f"{first[:WIDTH]}..."
    where = f" (more in {file})" if (more or shown != first) and PREFIX not in str(file) else ""
    print(f"Ray: {shown}{where}", file=sys.stderr, flush=True)


def _join_local(local: Local, ray: Any) -> None:
    """Join a Ray that was started here, on loopback."""
    from ray._private import ray_constants

    usual = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = (
        False  # else Ray puts the machine's network address in place of loopback
    )
    try:
        ray.init(local.address, _temp_dir=str(local.folder), **QUIET)
    except (OSError, RuntimeError) as error:
        raise Refusal(
            f"Ray: it was started here and does not answer ({_line(error)}); another attempt"
            " expected"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = usual


def _join(address: str, ray: Any) -> None:
    """Join the Ray at an address, whose processes for this one run this one's code, whatever is
    installed there.

    Where nothing listens that is said at once; Ray would try for minutes.
    """
    from ray.exceptions import AuthenticationError

    expected = (
        "the address of a Ray that runs, as 'ray start --head' prints it, or 'auto' on one of its"
        " machines, expected"
    )
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), REACHED).close()
    except (OSError, OverflowError) as error:
        raise Refusal(
            f"--address: {address}: nothing answers there ({error}); {expected}"
        ) from error
    try:
        ray.init(address, runtime_env={"py_modules": [str(Path(__file__).parents[1])]}, **QUIET)
    except AuthenticationError as error:
        raise Refusal(f"--address: {address}: {error}") from error
    except (OSError, ValueError) as error:
        admitted = (
            "RAY_AUTH_MODE=token and the token of that Ray in RAY_AUTH_TOKEN_PATH expected, if it"
            " has one"
        )
        raise Refusal(
            f"--address: {address}: no Ray lets this process in ({error}); {expected}; {admitted}"
        ) from error
    except RuntimeError as error:  # such as another version of Ray or of Python
        raise Refusal(f"--address: {address}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return what an error says, on one line that is not too long."""
    return " ".join(str(error).split())[:300]


@contextmanager
def _heard(gone: Callable[[], bool]) -> Iterator[None]:
    """End this process some seconds after a signal that asks to stop, at the second one, and when
    Ray is gone.

    Ray may sit in a call that lets no handler of Python run, for minutes; a thread hears of the
    signal all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_obey, args=(ears, over, gone), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        mouth.close()


def _obey(ears: socket.socket, over: threading.Event, gone: Callable[[], bool]) -> None:
    """End this process where it should and does not, until it is over."""
    ears.settimeout(POLL)
    asked, deadline = list[int](), math.inf
    while not over.is_set():
        with suppress(TimeoutError):
            asked += [
                number for number in ears.recv(16) if number in (signal.SIGINT, signal.SIGTERM)
            ]
        if asked:
            deadline = min(deadline, time.monotonic() + PATIENCE)
        if len(asked) > 1 or time.monotonic() > deadline:
            _leave("interrupted", 128 + asked[0])
        if gone() and not over.wait(PATIENCE):
            _leave(f"Ray: ended while it was joined; {REMEDY}", 2)
    ears.close()


def _leave(text: str, code: int) -> None:
    """End this process from a thread."""
    print(f"distvae: {text}", file=sys.stderr, flush=True)
    os._exit(code)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals that ask to stop, which Ray would replace by an end without a
    word.

    A terminal that is closed is none of the processes that start here: they are needed to save what
    was trained.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asking = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in asking.items():
            signal.signal(number, handler)


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
