"""The program that holds the processes of a local Ray: on loopback, in a private folder, as long as
it is wanted.

It is started by the process that wants a Ray (`distvae/machines/local_ray.py`), which can so be
stopped at any moment of the start. It writes one line of JSON when Ray stands, or when it cannot.
It ends when its standard input is closed, however the other process ended, and when Ray's head or
node process ends; it then ends all that is left of Ray and removes the folder. It imports nothing
of this package, so that it can be run by the path of its file.
"""

import contextlib
import fcntl
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

HOST = "127.0.0.1"
PREFIX = "distvae-ray-"
"""How the private folders of local Rays begin."""
LOCK = "lock"
"""The file of such a folder that is locked as long as its Ray lives."""
LONGEST = 50
"""Characters of a folder for temporary files below which the paths of Ray's sockets, at most 107
long, fit.
"""
POLL = 0.1
"""Seconds between two looks at what has ended."""
PATIENT = {
    "RAY_raylet_start_wait_time_s": "3600",
    "RAY_gcs_server_port_wait_time_s": "3600",
    "RAY_agent_register_timeout_ms": "3600000",
}
"""Settings by which Ray waits for its processes as long as they live: who waits for this program
sets the limit.
"""
UNUSED = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Ports of Ray's agent for metrics. Ray's node process aborts when the agent has not written them
down within 15 s; the agent is started without metrics, and it is written down beforehand that there
are no such ports.
"""


def main() -> None:
    """Hold a Ray with so many processors and bytes of object store, both given as arguments."""
    cpus, memory = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.update(PATIENT)
    base = temporary()
    sweep(base)
    folder, lock = private_folder(base)
    held = Held(folder)
    threading.Thread(target=held.watch, daemon=True).start()
    try:
        address = held.start(cpus, memory)
    except Exception as error:
        held.end(f"{type(error).__name__}: {error}")
    _tell(address=address, folder=str(folder))
    threading.Event().wait()
    os.close(lock)


def temporary() -> Path:
    """Return the folder for temporary files, or /tmp where its name is too long for the paths of
    sockets.
    """
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= LONGEST else Path(os.sep, "tmp")


def private_folder(base: Path) -> tuple[Path, int]:
    """Make a folder that only this user can enter, and lock it; return the folder and the
    descriptor of the lock.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    unlocked = folder / "unlocked"
    lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unlocked.rename(folder / LOCK)
    return folder, lock


def sweep(base: Path) -> None:
    """Remove the folders of local Rays of this user whose programs were killed."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _abandoned(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(lock: Path) -> bool:
    """Return whether nobody holds a lock."""
    file = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


class Held:
    """A Ray that is being started, or stands, and the watch over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node: Any = None
        self.ending = threading.Lock()

    def start(self, cpus: int, memory: int) -> str:
        """Start Ray's head and node processes; return the address of the head."""
        from ray._private.parameter import RayParams

        agent = free_port()
        parameters = RayParams(
            node_ip_address=HOST,
            num_cpus=cpus,
            object_store_memory=memory,
            temp_dir=str(self.folder / "ray"),
            session_name="session",  # short, for the paths of its sockets
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            runtime_env_agent_port=agent,  # else Ray's node process waits 15 s for it, and aborts
        )
        kind = _node_kind()
        self.node = kind.__new__(kind)  # seen by the watch while it is being started
        self.node.__init__(parameters, head=True, shutdown_at_exit=False, ray_init_cluster=True)
        wait_for_listener(
            agent
        )  # one that dies takes Ray's node process with it, which the watch sees
        return str(self.node.address)

    def watch(self) -> None:
        """End everything when nobody wants Ray any more, or when one of its main processes has
        ended.
        """
        while True:
            if _closed(sys.stdin.fileno(), POLL):
                self.end("")
            if name := self._ended():
                self.end(f"Ray's {name} ended{_last_words(self.folder, name)}")

    def _ended(self) -> str:
        """Return the name of a main process of Ray that has ended."""
        for name, processes in getattr(self.node, "all_processes", {}).copy().items():
            if any(process.process.poll() is not None for process in processes):
                return str(name)
        return ""

    def end(self, reason: str) -> NoReturn:
        """End all processes of Ray and this one, which share a session, and remove the folder."""
        with self.ending:
            if reason:
                _tell(failed=reason)
            with contextlib.suppress(Exception):
                self.node.kill_all_processes(check_alive=False, allow_graceful=not reason)
            shutil.rmtree(self.folder, ignore_errors=True)
            os.killpg(os.getpgrp(), signal.SIGKILL)
            os._exit(1)


def _node_kind() -> Any:
    """Return Ray's node without a dashboard and without metrics."""
    from ray._private import utils
    from ray._private.node import Node

    persist_port = importlib.import_module("ray._raylet").persist_port
    utils.get_dashboard_dependency_error = lambda: (
        "no dashboard wanted"
    )  # which starts the agent without metrics

    class LocalNode(Node):  # type: ignore[misc]
        def start_api_server(self, **_: Any) -> None:
            """Start none: there is nothing that it would show."""
            self._webui_url = ""

        def start_raylet(self, *arguments: Any, **options: Any) -> None:
            for name in UNUSED:
                persist_port(self._session_dir, self._node_id, name, -1)
            super().start_raylet(*arguments, **options)

    return LocalNode


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        return int(opened.getsockname()[1])


def wait_for_listener(port: int) -> None:
    """Wait until somebody listens on a port of loopback."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        time.sleep(POLL)


def _closed(file: int, seconds: float) -> bool:
    """Return whether the other end of a pipe is closed, after at most so many seconds."""
    readable, _, _ = select.select([file], [], [], seconds)
    return bool(readable) and not os.read(file, 1)


def _last_words(folder: Path, name: str) -> str:
    """Return what a process of Ray wrote last that is an error, on one line."""
    for file in folder.glob(f"ray/*/logs/{name}.err"):
        lines = file.read_text(errors="replace").splitlines()
        fatal = [line for line in lines if " C " in line or "Error" in line or "rror:" in line]
        if fatal:
            return f": {fatal[0].partition(') ')[2][:200] or fatal[0][:200]}"
    return ""


def _tell(**facts: str) -> None:
    with contextlib.suppress(OSError):
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
