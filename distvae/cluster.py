"""Ray: one that runs already, or one on this machine for a single job - its own, closed to others, gone afterwards."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distvae.refusal import Refusal

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # workers train; they are not in the way of anybody
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # who asked for no GPU sees none
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # which an epoch waits for, be it as short as it may
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of data stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial has its figures only at its end
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # trials are asked to stop, and keep what they did
}
REACHED = 10.0  # seconds in which a machine has to answer
MEMORY = 150 * 2**20  # of Ray's object store: reports of epochs are all that passes through it


@contextmanager
def joined(address: str | None, cpus: int, memory: int = MEMORY) -> Iterator[Any]:
    """The Ray at an address, or without one a new one on this machine with so many processors."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with _own_signals():
        if address is None:  # "local": never a cluster that happens to run here
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=memory, **quiet)
        else:
            _join(ray, address, quiet)
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Join the Ray at an address, whose processes for this one run this one's code, whatever is installed there.

    Where nothing listens that is said at once; Ray would try for minutes.
    """
    from ray.exceptions import AuthenticationError

    expected = (
        "the address of a Ray that runs, as 'ray start --head' prints it, or 'auto' on one of its machines, expected"
    )
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), REACHED).close()
    except (OSError, OverflowError) as error:
        raise Refusal(f"--address: {address}: nothing answers there ({error}); {expected}") from error
    try:
        ray.init(address, runtime_env={"py_modules": [str(Path(__file__).parent)]}, **options)
    except AuthenticationError as error:
        raise Refusal(f"--address: {address}: {error}") from error
    except (OSError, ValueError) as error:
        admitted = "RAY_AUTH_MODE=token and the token of that Ray in RAY_AUTH_TOKEN_PATH expected, if it has one"
        raise Refusal(f"--address: {address}: no Ray lets this process in ({error}); {expected}; {admitted}") from error
    except RuntimeError as error:  # such as another version of Ray or of Python
        raise Refusal(f"--address: {address}: {' '.join(str(error).split())}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of signals that ask to stop, which Ray would replace by an end without a word.

    A terminal that is closed is none of the processes that start here: they are needed to save what was trained.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asking = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in asking.items():
            signal.signal(number, handler)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
