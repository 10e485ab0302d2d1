"""MLflow for a cluster: its server on the head's loopback, its database here, a copy of that on the
shared storage.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.track.store import QUIET

HOST = "127.0.0.1"
DATABASE = Path("~/mlflow/mlflow.db")
COPIES = "mlflow"
"""The folder of the storage with the copy."""
EVERY = 20.0
"""Seconds between two copies, if there is something new."""
MISSED = 3
"""So many looks in vain at what it stands beside, and it ends."""
DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]"}
"""What has the drivers of databases of other kinds."""
USUAL = {"postgresql": "psycopg2"}
"""The drivers of those whose URI names none."""


def serve(storage: str, port: int, database: str | None, beside: str | None = None) -> None:
    """Serve until asked to stop, if nothing does already; a database that is not here comes back
    from its copy.

    What it stands beside, such as Ray's head, is given a minute to come back once it is gone.
    """
    if answers(port):
        print(f"MLflow is served on {HOST}:{port} already")
        return
    file = None if database else DATABASE.expanduser()
    there = Folder(storage)
    if file is not None:
        restore(file, there.subfolder(COPIES))
    uri = database or f"sqlite:///{file}"
    _refuse_without_driver(uri)
    server = _start(uri, f"{storage.rstrip('/')}/mlartifacts", port)
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(f"MLflow: http://{HOST}:{port}", flush=True)
    seen: object = None
    missed = 0
    while server.poll() is None and not over.is_set() and missed < MISSED:
        over.wait(EVERY)
        missed = 0 if beside is None or _listens(beside) else missed + 1
        seen = _kept(file, there.subfolder(COPIES), seen)
    by_itself = server.poll() is not None and not over.is_set()  # Ctrl-C ends both
    server.terminate()
    server.wait()
    _kept(file, there.subfolder(COPIES), seen)
    if by_itself:
        raise Refusal(f"MLflow's server ended with {server.returncode}; what it said stands above")


def answers(port: int) -> bool:
    """Whether an MLflow listens there."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5) as reply:
            return bool(reply.read() == b"OK")
    except (OSError, urllib.error.URLError):
        return False


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def restore(file: Path, copies: Folder) -> None:
    """Bring the database back from its copy, on a head that has none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return
    try:
        content = copies.read(file.name) if copies.has(file.name) else None
    except OSError as error:
        why = " ".join(str(error).split())
        raise Refusal(
            f"--storage: {copies}: {why}; a path or a bucket that answers expected"
        ) from error
    if content is not None:
        Folder(file.parent).write(file.name, content)
        print(f"{file}: brought back from {copies}")


def _kept(file: Path | None, copies: Folder, seen: object) -> object:
    """Copy a database that has changed; the state of the latest copy."""
    now = _state(file) if file is not None else None
    return now if file is not None and now and now != seen and copy(file, copies) else seen


def copy(file: Path, copies: Folder) -> bool:
    """Copy the database as it is at one moment, while others write; what fails is said, and tried
    again later.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / file.name
            with (
                closing(sqlite3.connect(file)) as source,
                closing(sqlite3.connect(whole)) as target,
            ):
                source.backup(target)
            copies.write(file.name, whole.read_bytes())
    except (OSError, sqlite3.Error, Refusal) as error:
        print(
            f"{copies}: no copy of {file}: {error}; tried again soon", file=sys.stderr, flush=True
        )
        return False
    return True


def _state(file: Path) -> list[tuple[int, int]]:
    """Changes when the database does; its log goes when MLflow ends."""
    found = []
    for one in (file, file.with_name(f"{file.name}-wal")):
        with suppress(FileNotFoundError):
            found.append((one.stat().st_mtime_ns, one.stat().st_size))
    return found


def _start(uri: str, artifacts: str, port: int) -> "subprocess.Popen[bytes]":
    """MLflow's server, which is told of its database where nobody else can read it."""
    told = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "PYTHONWARNINGS": "ignore",
    }
    words = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, *words, "--uvicorn-opts", "--log-level warning"],
        env=os.environ | QUIET | told,
    )


def _refuse_without_driver(uri: str) -> None:
    from importlib.util import find_spec

    kind, _, named = urlsplit(uri).scheme.partition("+")
    driver = named or USUAL.get(kind, "")
    if driver in DRIVERS and not find_spec(driver):
        raise Refusal(
            f"DISTVAE_DATABASE: {kind} needs a driver: 'pip install \"{DRIVERS[driver]}\"' on the"
            " head expected"
        )
