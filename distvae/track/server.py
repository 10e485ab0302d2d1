"""MLflow's server for a cluster, on the loopback of its head.

The database is on the head. A copy of the database is on the shared storage.
"""

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from distvae.files.program import is_installed
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder, sqlite_uri
from distvae.system import HOST
from distvae.track.store import QUIET, SERVER_OPTIONS

DATABASE = Path("~/mlflow/mlflow.db")
COPY_FOLDER = "mlflow"
"""The folder of the storage that holds the copy."""
COPY_INTERVAL = 20.0
"""Seconds between two checks for a changed database."""
MAX_MISSED = 3
"""Consecutive checks without an answer from the companion, after which the server ends."""
DRIVER_PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"}
"""The packages that contain the drivers of databases."""
DEFAULT_DRIVERS = {"postgresql": "psycopg2"}
"""The drivers of database URIs that name no driver."""


def serve(storage: str, port: int, database: str | None, beside: str | None = None) -> None:
    """Serve until a signal arrives, unless another server runs already and keeps running.

    A missing database file is restored from its copy. With `beside`, the address of a companion
    such as Ray's head, the server ends a minute after its companion.
    """
    if mlflow_answers(port) and (beside is None or _stays(port)):
        print(f"MLflow is served on {HOST}:{port} already")
        return
    file = None if database else DATABASE.expanduser()
    copies = Folder(storage).subfolder(COPY_FOLDER)
    if file is not None:
        restore_database(file, copies)
    uri = database or sqlite_uri(DATABASE.expanduser())
    _refuse_missing_driver(uri)
    server = start_server(uri, port, f"{storage.rstrip('/')}/mlartifacts")
    stopped = _stop_event()
    print(f"MLflow: http://{HOST}:{port}", flush=True)
    connection = sqlite3.connect(file) if file else None
    copied = missed = 0
    while server.poll() is None and not stopped.is_set() and missed < MAX_MISSED:
        stopped.wait(COPY_INTERVAL)
        missed = 0 if beside is None or _is_listening(beside) else missed + 1
        copied = copy_database(connection, copies, copied) if connection else 0
    has_failed = server.poll() is not None and not stopped.is_set()  # Ctrl-C ends both
    server.terminate()
    server.wait()
    if connection:
        copy_database(connection, copies, copied)
        connection.close()
    if has_failed:
        raise ended_by_itself(server)


def _stays(port: int) -> bool:
    """Return whether a port stays taken for longer than a server outlives its companion. MLflow may
    answer late.
    """
    until = time.monotonic() + (MAX_MISSED + 1) * COPY_INTERVAL
    while _is_listening(f"{HOST}:{port}"):
        if time.monotonic() >= until:
            return True
        time.sleep(COPY_INTERVAL / 20)
    return False


def _stop_event() -> threading.Event:
    """Return an event that is set when a signal asks this process to stop."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopped


def mlflow_answers(port: int) -> bool:
    """Return whether an MLflow listens on a port of loopback."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5) as reply:
            return bool(reply.read() == b"OK")
    except (OSError, http.client.HTTPException):  # nothing, or another program
        return False


def _is_listening(address: str) -> bool:
    """Return whether anything listens on an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def restore_database(file: Path, copies: Folder) -> None:
    """Restore the database from its copy on a head without a database."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return
    try:
        content = copies.read(file.name) if copies.has(file.name) else None
    except OSError as error:
        raise Refusal(
            f"--storage: {copies}: {cause(error)}; a path or a bucket that answers expected"
        ) from error
    if content is not None:
        Folder(file.parent).write(file.name, content)
        print(f"{file}: restored from {copies}")


def copy_database(database: sqlite3.Connection, copies: Folder, copied: int) -> int:
    """Copy a consistent state of the database while MLflow writes to it.

    Do nothing if the database still has the version `copied`. Return the version of the latest
    copy. A failure is printed, and the next check tries again.
    """
    try:
        (version,) = database.execute("pragma data_version").fetchone()
        if version != copied:
            with closing(sqlite3.connect(":memory:")) as copy:
                database.backup(copy)
                copies.write(DATABASE.name, copy.serialize())
        return int(version)
    except (OSError, sqlite3.Error, Refusal) as error:
        message = f"{copies}: no copy of {DATABASE}: {error}; tried again soon"
        print(message, file=sys.stderr, flush=True)
        return copied


def start_server(
    uri: str, port: int, artifacts: str | None = None, in_group: int | None = None
) -> "subprocess.Popen[bytes]":
    """Start MLflow's server. By default the server keeps artifacts in its own folder. Its
    environment keeps the database's password from other users.

    With 0 as `in_group` the server has its own process group, which Ctrl-C does not reach.
    """
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "PYTHONWARNINGS": "ignore"}
    if artifacts:
        settings["MLFLOW_ARTIFACTS_DESTINATION"] = artifacts
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    environment = os.environ | QUIET | settings
    return subprocess.Popen([*command, *SERVER_OPTIONS], env=environment, process_group=in_group)


def ended_by_itself(server: "subprocess.Popen[bytes]") -> Refusal:
    """Return the refusal for a server that ended without a request."""
    return Refusal(f"MLflow's server ended with {server.returncode}; its messages stand above")


def _refuse_missing_driver(uri: str) -> None:
    """Refuse a database whose driver is not installed."""
    kind, _, named = urlsplit(uri).scheme.partition("+")
    driver = named or DEFAULT_DRIVERS.get(kind, "")
    if driver in DRIVER_PACKAGES and not is_installed(driver):
        raise Refusal(
            f"DISTVAE_DATABASE: {kind} needs a driver: 'pip install \"{DRIVER_PACKAGES[driver]}\"'"
            " on the head expected"
        )
