"""A session with Ray: with one that runs already, or with a private one on this machine."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from tempfile import TemporaryDirectory
from typing import Protocol, TypedDict

from distvae.files.program import PACKAGE
from distvae.files.refusal import Refusal, cause


class NodeInfo(TypedDict):
    """A machine as Ray describes it."""

    NodeID: str
    NodeManagerAddress: str
    Alive: bool
    Resources: dict[str, float]


class RayApi(Protocol):
    """The module `ray` of a process that is connected to a cluster."""

    def nodes(self) -> list[NodeInfo]:
        """Return all machines, including machines that are gone."""

    def available_resources(self) -> Mapping[str, float]:
        """Return the resources that nobody uses."""


class ObjectRef(Protocol):
    """A reference to a value that another process computes; `ray.get` returns the value."""


class RemoteMethod(Protocol):
    """A method of an actor, or a function that runs in another process."""

    def remote(self, *arguments: object) -> ObjectRef:
        """Call it and return a reference to its result."""


class ActorHandle(Protocol):
    """A handle of an actor, which has the methods of the actor's class."""

    def __getattr__(self, name: str) -> RemoteMethod:
        """Return a method."""


STALL_VARIABLE = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Names the seconds after which Ray Train restarts all workers if one does not answer."""
STALL_SECONDS = 300.0
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training workers are not background processes
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a process that requests no GPU sees none
    # A report of workers waits for a health check.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # snapshots and checkpoints serve
    STALL_VARIABLE: f"{STALL_SECONDS:.0f}",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of data stay valid
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial has its scores only at its end
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # trials are asked to stop, and keep their progress
}
"""Environment variables of every process that uses Ray."""
WITH_DASHBOARD = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
"""Variables for a Ray that others started: its dashboard shows trainings and what they report."""
WITHOUT_DASHBOARD = {
    # Ray Train asks the dashboard at its end; without an address it waits 10 s for one.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Variables for a Ray that has no dashboard."""
ON_ONE_MACHINE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it listens on loopback alone, as on these systems
    # its processes may start slowly on a busy machine
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_agent_register_timeout_ms": "60000",
}
"""Variables for a Ray that has one machine, which have to be set before Ray is imported."""
QUIETLY = {"log_to_driver": False, "logging_level": logging.CRITICAL}
"""Options that keep Ray from printing its own messages."""
ATTEMPTS = 2
CONNECT_SECONDS = 10.0
"""Seconds in which the address of a Ray has to answer."""
OBJECT_STORE_BYTES = 150 * 2**20
"""The size of Ray's object store, which holds little but the reports of epochs."""
GRACE_SECONDS = 5.0
"""Seconds from a signal until a process that is connecting to Ray is ended."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ray_session(
    address: str | None,
    cpus: int,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    stop: Callable[[], object] = lambda: False,
) -> Iterator[RayApi]:
    """Connect to the Ray at an address, or start a private one with `cpus` processors.

    A private Ray is closed to others and ends with this process. Raise KeyboardInterrupt if `stop`
    returns true before the connection stands.
    """
    _refuse_connected_program()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is not None:
        with _environment(WITH_DASHBOARD), _connection(lambda: _connect(address), stop) as ray:
            yield ray
        return
    with (
        # Ray's sockets lie in it, so its path has to be short
        TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        _environment(WITHOUT_DASHBOARD | ON_ONE_MACHINE | {"RAY_TMPDIR": folder}),
        _environment({"RAY_AUTH_TOKEN": process_token()}),
        _connection(lambda: _start(cpus, object_store_bytes), stop) as ray,
    ):
        yield ray


@cache
def process_token() -> str:
    """Return the token of the private Rays of this process. One token serves all of them, because
    Ray keeps the first token that a process reads.
    """
    return secrets.token_hex(32)


def _refuse_connected_program() -> None:
    """Refuse a program that has connected to a Ray itself: it cannot use another one meanwhile."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise Refusal(
            "Ray: this program is connected to one already; ray.shutdown() first expected"
        )


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, and delete them at the end."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _connection(connect: Callable[[], None], stop: Callable[[], object]) -> Iterator[RayApi]:
    """Connect to Ray, and disconnect at the end."""
    if stop():
        raise KeyboardInterrupt
    import ray

    with _interruptible():
        connect()
    try:
        if stop():
            raise KeyboardInterrupt
        api: RayApi = ray
        yield api
    finally:
        ray.shutdown()


def _start(cpus: int, object_store_bytes: int) -> None:
    """Start a Ray on this machine, and connect to it."""
    import ray

    size = {"num_cpus": cpus, "object_store_memory": object_store_bytes}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init("local", include_dashboard=False, **QUIETLY, **size)
            return
        except Exception as error:  # of many kinds, as processes of Ray fail
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise Refusal(
                    f"Ray: does not start on this machine ({cause(error)[:300]}); less load or more"
                    " memory expected, or one process (train without --workers), or --address of"
                    " a Ray that runs"
                ) from error


def _connect(address: str) -> None:
    """Connect to a running Ray, whose processes then use this code, whatever is installed there."""
    import ray
    from ray.exceptions import AuthenticationError, RpcError

    expected = (
        "the address of a Ray that runs, as 'ray start --head' prints it, or 'auto' on one of its"
        " machines, expected"
    )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    _refuse_other_program(address, expected)
    try:
        ray.init(address, runtime_env={"py_modules": [str(PACKAGE)]}, **QUIETLY)
    except AuthenticationError as error:
        raise Refusal(f"--address: {address}: {error}") from error
    except (OSError, ValueError, RpcError) as error:
        raise Refusal(
            f"--address: {address}: no Ray lets this process in ({error}); {expected};"
            " RAY_AUTH_MODE=token and the token of that Ray in RAY_AUTH_TOKEN_PATH expected, if it"
            " has one"
        ) from error
    except RuntimeError as error:  # such as another version of Ray or of Python
        raise Refusal(f"--address: {address}: {cause(error)[:300]}") from error


def _refuse_other_program(address: str, expected: str) -> None:
    """Refuse an address where nothing listens, or a program that does not speak gRPC: Ray's own
    client would wait for minutes.
    """
    import grpc

    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Refusal(
            f"--address: {address}: nothing answers there ({error}); {expected}"
        ) from error
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise Refusal(
                f"--address: {address}: what listens there is no Ray; {expected}"
            ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals end this process while it connects to Ray, and restore the signal handlers that
    Ray replaces.

    Connecting to Ray can take minutes in a call that lets no signal handler of Python run. A thread
    receives the signals meanwhile. SIGHUP is ignored, and so in the processes that start: when a
    terminal is closed, they are still needed to save the training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    earlier = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_exit_when_asked, args=[receiver], daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        sender.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit_when_asked(receiver: socket.socket) -> None:
    """End this process, and the processes of a Ray that starts, at the second signal or a few
    seconds after the first one. Return once the sender is closed.
    """
    import psutil

    received: list[int] = []
    with receiver, suppress(TimeoutError):
        while len(received) < 2:
            if not (content := receiver.recv(1)):
                return
            if content[0] in STOP_SIGNALS:
                received += content
                receiver.settimeout(GRACE_SECONDS)
    print("distvae: interrupted", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(128 + received[0])
