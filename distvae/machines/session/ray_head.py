"""The program that holds the processes of a local Ray: on loopback, in a private folder.

`local_ray.py` starts it, and can therefore stop the start at any moment. The program writes one
line of JSON when Ray has started or cannot start. It ends when anything is written to its standard
input, when that is closed, however the process that started it ended, and when a main process of
Ray ends, which it says on standard error. It then ends all other processes of Ray and removes the
folder. It imports nothing of this package, so that it can be run by the path of its file.
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
FOLDER_PREFIX = "distvae-ray-"
"""The beginning of the names of private folders."""
LOCK = "lock"
"""A file in each private folder that is locked as long as its Ray lives."""
LONGEST_FOLDER = 50
"""Characters of a temporary folder that leave room for Ray's sockets, whose paths have 107 at
most.
"""
POLL_SECONDS = 0.1
"""Seconds between two looks at what has ended."""
FOLLOWING_SECONDS = 0.5
"""Seconds to wait for Ray's processes to end when the process that uses Ray has ended: Ray's client
ends it if Ray is ending.
"""
REMOVAL_SECONDS = 10.0
"""Seconds in which the private folder can be removed after Ray's processes were killed."""
TIMEOUTS = {
    "RAY_raylet_start_wait_time_s": "3600",
    "RAY_gcs_server_port_wait_time_s": "3600",
    "RAY_agent_register_timeout_ms": "3600000",
}
"""Settings that make Ray wait for its processes as long as they live.

The process that started this program sets the limit.
"""
CONTINUATION = "run the same command again, with --resume if it had saved anything"
"""What to do if Ray ends unexpectedly."""
UNUSED_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Ports of Ray's agent for metrics, which is started without metrics.

Ray's node process aborts if nobody writes these ports to a file within 15 s, so this program writes
there beforehand that there are none.
"""


def main() -> None:
    """Hold a Ray with as many processors and bytes of object store as the arguments say."""
    cpus, object_store_bytes = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.update(TIMEOUTS)
    terminal = take_standard_error()
    parent = temporary_folder()
    remove_abandoned_folders(parent)
    folder, lock = make_private_folder(parent)
    holder = RayHolder(folder, terminal)
    threading.Thread(target=holder.watch, daemon=True).start()
    try:
        address = holder.start(cpus, object_store_bytes)
    except Exception as error:
        holder.end(f"{type(error).__name__}: {error}")
    holder.has_started = True
    _report(address=address, folder=str(folder))
    threading.Event().wait()
    os.close(lock)


def take_standard_error() -> int:
    """Return a descriptor of standard error that Ray's processes do not inherit; what they write to
    theirs is discarded.
    """
    taken = os.dup(sys.stderr.fileno())
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stderr.fileno())
    os.close(silence)
    return taken


def temporary_folder() -> Path:
    """Return the folder for temporary files, or /tmp if its name is too long for sockets."""
    usual = Path(tempfile.gettempdir())
    if len(str(usual)) <= LONGEST_FOLDER:
        return usual
    return Path(os.sep, "tmp")


def make_private_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder that only this user can enter; return it and the descriptor of its lock."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
    unlocked = folder / "unlocked"
    lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unlocked.rename(folder / LOCK)
    return folder, lock


def remove_abandoned_folders(parent: Path) -> None:
    """Remove the folders of this user's local Rays whose programs were killed."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _is_unlocked(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _is_unlocked(lock: Path) -> bool:
    """Return whether no process holds a lock."""
    file = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


class RayHolder:
    """The processes of a Ray that is starting or has started, and the watch over them."""

    def __init__(self, folder: Path, terminal: int) -> None:
        self.folder = folder
        self.terminal = terminal
        """The descriptor for what the user reads."""
        self.node: Any = None
        self.has_started = False
        self.ending = threading.Lock()

    def start(self, cpus: int, object_store_bytes: int) -> str:
        """Start Ray's head and node processes; return the address of the head."""
        from ray._private.parameter import RayParams

        agent_port = free_port()
        parameters = RayParams(
            node_ip_address=HOST,
            num_cpus=cpus,
            object_store_memory=object_store_bytes,
            temp_dir=str(self.folder / "ray"),
            session_name="session",  # short, for the paths of its sockets
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            # Without a port, Ray's node process waits 15 s for one and aborts.
            runtime_env_agent_port=agent_port,
        )
        kind = _local_node_class()
        self.node = kind.__new__(kind)  # the watch sees it while it is being started
        self.node.__init__(parameters, head=True, shutdown_at_exit=False, ray_init_cluster=True)
        # If the agent dies, Ray's node process ends too, which the watch sees.
        self._wait_for_agent()
        return str(self.node.address)

    def _wait_for_agent(self) -> None:
        """Wait for the file that Ray's agent writes once it has its port.

        An answer on the port proves nothing: another program may have taken it.
        """
        ray = importlib.import_module("ray._raylet")
        file = ray.get_port_filename(self.node._node_id, ray.RUNTIME_ENV_AGENT_PORT_NAME)
        while not Path(self.node._session_dir, file).exists():
            time.sleep(POLL_SECONDS)

    def watch(self) -> None:
        """End everything when nobody wants Ray any more, or when a main process has ended."""
        while True:
            request = _request(sys.stdin.fileno(), POLL_SECONDS)
            if request:
                self.end("")
            if request == b"":  # the process that uses Ray has ended
                time.sleep(FOLLOWING_SECONDS)
                self.end(self._reason_of_end())
            if reason := self._reason_of_end():
                self.end(reason)

    def _reason_of_end(self) -> str:
        """Return which main process of Ray has ended, and its error, or ''."""
        running = getattr(self.node, "all_processes", {}).copy()
        for name, processes in running.items():
            if any(process.process.poll() is not None for process in processes):
                return f"Ray's {name} ended{_last_error(self.folder, name)}"
        return ""

    def end(self, reason: str) -> NoReturn:
        """End all processes of Ray and this one, which are a group, and remove the folder."""
        with self.ending:
            if reason:
                self._say_why(reason)
            with contextlib.suppress(Exception):
                self.node.kill_all_processes(check_alive=False, allow_graceful=not reason)
            end_group_and_remove(self.folder)

    def _say_why(self, reason: str) -> None:
        """Report why Ray ends. Once Ray has started, tell the user too: the process that started
        this one may end before it can.
        """
        _report(failed=reason)
        if self.has_started:
            with contextlib.suppress(OSError):
                os.write(self.terminal, f"distvae: {reason}; {CONTINUATION}\n".encode())


def end_group_and_remove(folder: Path) -> NoReturn:
    """Kill this process and all others of its group, then remove a folder they may write into.

    A child outside the group does so. Standard output is closed when it has finished.
    """
    group = os.getpgrp()
    if os.fork():
        threading.Event().wait()
    os.setsid()
    os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + REMOVAL_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(POLL_SECONDS)
    os._exit(0)


def _local_node_class() -> Any:
    """Return Ray's node class without a dashboard and without metrics."""
    from ray._private import utils
    from ray._private.node import Node

    persist_port = importlib.import_module("ray._raylet").persist_port
    # Ray starts the agent without metrics if this function returns a message.
    utils.get_dashboard_dependency_error = lambda: "no dashboard wanted"

    class LocalNode(Node):  # type: ignore[misc]
        def start_api_server(self, **_: object) -> None:
            """Start no server, because it would have nothing to show."""
            self._webui_url = ""

        def start_raylet(self, *arguments: object, **options: object) -> None:
            for name in UNUSED_PORTS:
                persist_port(self._session_dir, self._node_id, name, -1)
            super().start_raylet(*arguments, **options)

    return LocalNode


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        return int(opened.getsockname()[1])


def _request(pipe: int, seconds: float) -> bytes | None:
    """Return what is written into a pipe within some seconds, b"" if it was closed, or None."""
    readable, _, _ = select.select([pipe], [], [], seconds)
    return os.read(pipe, 8) if readable else None


def _last_error(folder: Path, name: str) -> str:
    """Return the first error in the log of a process of Ray, on one line, or ''."""
    for file in folder.glob(f"ray/*/logs/{name}.err"):
        for line in file.read_text(errors="replace").splitlines():
            if " C " in line or "Error" in line or "rror:" in line:
                message = line.partition(") ")[2] or line
                return f": {message[:200]}"
    return ""


def _report(**facts: str) -> None:
    """Write a line of JSON for the process that started this program."""
    with contextlib.suppress(OSError):
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
