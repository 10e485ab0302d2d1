"""A session with Ray: with one that runs already, or with a private one on this machine."""

import importlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from distvae.files.checkout import PACKAGE
from distvae.files.refusal import Refusal, cause
from distvae.machines.ray_api import RayApi
from distvae.machines.session.local_ray import LocalRay, exit_when_it_ends, local_ray
from distvae.machines.session.ray_messages import shorten_ray_messages
from distvae.machines.session.stop_signals import exit_on_stop_signals, kept_signal_handlers

STALL_VARIABLE = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Names the seconds after which Ray Train restarts workers of which one does not answer."""
STALL_SECONDS = 300.0
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # training workers are not background processes
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a process that requests no GPU sees none
    # A report of workers waits for a health check.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    STALL_VARIABLE: f"{STALL_SECONDS:.0f}",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of data stay valid
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial has its scores only at its end
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # trials are asked to stop, and keep their progress
}
"""Environment variables of every process that uses Ray."""
WITHOUT_DASHBOARD = {
    # Ray Train asks the dashboard at its end; without an address it waits 10 s for one.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Variables for a Ray that has no dashboard."""
ON_ONE_MACHINE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Variables for a Ray that has one machine, which nobody takes away."""
CONNECT_SECONDS = 10.0
"""Seconds in which the address of a Ray has to answer."""
OBJECT_STORE_BYTES = 150 * 2**20
"""The size of Ray's object store, which holds little but the reports of epochs."""


def never_stop() -> bool:
    """Return False."""
    return False


@contextmanager
def ray_session(
    address: str | None,
    cpus: int,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    stop: Callable[[], object] = never_stop,
) -> Iterator[RayApi]:
    """Connect to the Ray at an address, or start a private one with `cpus` processors.

    A private Ray is closed to others and ends with the session; if it ends before, so does this
    process. Raise KeyboardInterrupt if `stop` returns true before the connection stands.
    """
    _refuse_connected_program()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is not None:
        with _connection(lambda: _connect(address), stop) as ray:
            yield ray
        return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with (
        _environment(WITHOUT_DASHBOARD | ON_ONE_MACHINE),
        local_ray(cpus, object_store_bytes, stop) as local,
        exit_when_it_ends(local),
        _connection(lambda: _connect_locally(local), stop) as ray,
    ):
        yield ray


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
    import ray

    # A program that imported Ray before had it read its variables without those of SETTINGS.
    importlib.import_module("ray._raylet").Config.initialize("")
    with kept_signal_handlers(), exit_on_stop_signals():
        connect()
    shorten_ray_messages()
    try:
        if stop():
            raise KeyboardInterrupt
        api: RayApi = ray
        yield api
    finally:
        ray.shutdown()


def _init(address: str, **options: object) -> None:
    """Connect to Ray without its own messages."""
    import ray

    ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **options)


def _connect_locally(local: LocalRay) -> None:
    """Connect to a Ray that was started here, on loopback."""
    from ray._private import ray_constants

    # Otherwise Ray replaces loopback by the machine's network address.
    usual = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        _init(local.address, _temp_dir=str(local.folder))
    except (OSError, RuntimeError) as error:
        raise Refusal(
            f"Ray: it was started here and does not answer ({cause(error)[:300]}); try again"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = usual


def _connect(address: str) -> None:
    """Connect to a running Ray, whose processes then use this code, whatever is installed there."""
    from ray.exceptions import AuthenticationError, RpcError

    expected = (
        "the address of a Ray that runs, as 'ray start --head' prints it, or 'auto' on one of its"
        " machines, expected"
    )
    _refuse_silent_address(address, expected)
    try:
        _refuse_closed_ray(address, expected)
        _init(address, runtime_env={"py_modules": [str(PACKAGE)]})
    except Refusal:  # it is a ValueError too
        raise
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


def _refuse_silent_address(address: str, expected: str) -> None:
    """Refuse an address where nothing listens."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Refusal(
            f"--address: {address}: nothing answers there ({error}); {expected}"
        ) from error


def _refuse_closed_ray(address: str, expected: str) -> None:
    """Refuse a Ray that listens on loopback alone, as that of a sweep or a training does, and
    raise AuthenticationError for one that expects another token.

    Ray itself would try for many minutes.
    """
    services = importlib.import_module("ray._private.services")
    services.find_gcs_addresses.cache_clear()
    found = services.canonicalize_bootstrap_address(address)
    if not found:
        return
    try:
        _refuse_silent_address(found, expected)
    except Refusal as error:
        raise Refusal(
            f"--address: {address}: nothing answers at {found}, where Ray looks for it. A Ray that"
            f" distvae has started for itself is closed to others; {expected}"
        ) from error
    _refuse_other_program(address, found, expected)
    importlib.import_module("ray._raylet").GcsClient(address=found, cluster_id=None)


def _refuse_other_program(address: str, found: str, expected: str) -> None:
    """Refuse a program that listens and does not speak gRPC. If Ray's own client were to wait for
    it, the client would end this process after a minute.
    """
    import grpc

    channel = importlib.import_module("ray._private.grpc_utils").init_grpc_channel(found)
    try:
        grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise Refusal(f"--address: {address}: what listens there is no Ray; {expected}") from error
    finally:
        channel.close()
