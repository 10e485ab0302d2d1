"""The listening sockets of this machine: which process listens, and whether the network reaches it.

The doctor sends these functions to other machines by value.
"""

import contextlib
import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

Kind = Literal["dashboard", "mlflow", "ray", "other"]
LISTEN_STATE = "0A"
"""The state of a listening socket in the kernel's tables."""
RAY_PROCESSES = {
    "ray::DashboardAgent": "agent",
    "ray::RuntimeEnvAgent": "agent",
    "ray::": "worker",
    "ray/raylet/raylet": "raylet",
    "ray/gcs/gcs_server": "head",
    "ray/dashboard/": "metrics",
    "ray.util.client.server": "client server",
}
"""Ray's processes by a part of their command line; the first that matches counts."""
MLFLOW_COMMANDS = ("mlflow server", "mlflow ui", "mlflow.server", "bin/mlflow")


class Listener(TypedDict):
    """A listening socket."""

    address: str
    port: int
    process: str | None
    """Its name; None if it cannot be seen."""
    kind: Kind


def list_listeners(proc: Path = Path("/proc")) -> list[Listener] | None:
    """Return all listening TCP sockets, or None if the system does not tell."""
    if not (proc / "net" / "tcp").exists():
        return None
    owners = _socket_owners(proc)
    found: dict[tuple[str, int], Listener] = {}
    for address, port, inode in _listening_sockets(proc):
        kind, process = _identify(owners.get(inode), address)
        found[address, port] = {"address": address, "port": port, "process": process, "kind": kind}
    return [found[key] for key in sorted(found)]


def is_open(address: str) -> bool:
    """Return whether other machines reach what listens on an address."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not (mapped or found).is_loopback


def _listening_sockets(proc: Path) -> Iterator[tuple[str, int, str]]:
    """Yield the address, port and inode of each listening socket."""
    for table in (proc / "net" / "tcp", proc / "net" / "tcp6"):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == LISTEN_STATE:
                address, _, port = local.partition(":")
                yield _parse_address(address), int(port, 16), inode


def _parse_address(digits: str) -> str:
    """Return an address from the kernel's words of four bytes, in the machine's byte order."""
    packed = b""
    for start in range(0, len(digits), 8):
        word = int(digits[start : start + 8], 16)
        packed += word.to_bytes(4, sys.byteorder)
    return str(ipaddress.ip_address(packed))


def _socket_owners(proc: Path) -> dict[str, Path]:
    """Return the process of each socket, where this process may look at it."""
    found = {}
    for process in proc.glob("[0-9]*"):
        for link in _open_files(process / "fd"):
            if link.startswith("socket:["):
                inode = link.removeprefix("socket:[").removesuffix("]")
                found[inode] = process
    return found


def _open_files(folder: Path) -> Iterator[str]:
    """Yield the targets of a process's file descriptors."""
    try:
        entries = list(folder.iterdir())
    except OSError:  # the process has ended, or belongs to another user
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # closed since
            yield str(entry.readlink())


def _identify(process: Path | None, address: str) -> tuple[Kind, str | None]:
    """Return the kind and the name of a process.

    Its command line may contain secrets, so that is not part of the name.
    """
    if process is None:
        return "other", None
    try:
        text = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return "other", None
    command = text.rstrip("\0").split("\0")
    line = " ".join(command)
    if "ray/dashboard/dashboard.py" in line and f"--host={address}" in command:
        return "dashboard", "dashboard"
    if any(part in line for part in MLFLOW_COMMANDS):
        return "mlflow", "MLflow"
    for part, name in RAY_PROCESSES.items():
        if part in line:
            return "ray", name
    if _uses_ray(process):
        return "ray", "driver"
    return "other", _program_name(command)


def _uses_ray(process: Path) -> bool:
    """Return whether a process has loaded Ray."""
    try:
        return "/ray/_raylet" in (process / "maps").read_text()
    except OSError:
        return False


def _program_name(command: list[str]) -> str:
    """Return the name of a program, or of the script or module that Python runs."""
    program = Path(command[0].split(" ")[0].rstrip(":")).name
    if not program.startswith("python") or len(command) < 2:
        return program
    if command[1] == "-m" and len(command) > 2:
        return command[2]
    return program if command[1].startswith("-") else Path(command[1]).name
