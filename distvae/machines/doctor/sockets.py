"""Who listens on which port of this machine, and whether the network reaches it."""

import contextlib
import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["dashboard", "mlflow", "ray", "other"]
LISTENS = "0A"
"""How the kernel's tables say so."""
RAYS = {
    "ray::DashboardAgent": "agent",
    "ray::RuntimeEnvAgent": "agent",
    "ray::": "worker",
    "ray/raylet/raylet": "raylet",
    "ray/gcs/gcs_server": "head",
    "ray/dashboard/": "metrics",
    "ray.util.client.server": "client server",
}
"""Ray's processes by a part of their command line; the first that is found counts."""


def listening(proc: Path = Path("/proc")) -> list[dict[str, Any]] | None:
    """Address, port, process and kind of each listening TCP socket; None where the system does not
    tell.
    """
    if not (proc / "net" / "tcp").exists():
        return None
    owners, found = _owners(proc), {}
    for address, port, inode in _sockets(proc):
        kind, process = _role(proc, owners.get(inode), address)
        found[address, port] = {"address": address, "port": port, "process": process, "kind": kind}
    return [found[key] for key in sorted(found)]


def is_open(address: str) -> bool:
    """Whether other machines reach what listens on an address."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not (mapped or found).is_loopback


def _sockets(proc: Path) -> Iterator[tuple[str, int, str]]:
    for table in (proc / "net" / "tcp", proc / "net" / "tcp6"):
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            if fields[3] == LISTENS:
                words, _, port = fields[1].partition(":")
                yield _address(words), int(port, 16), fields[9]


def _address(words: str) -> str:
    """An address from the kernel's numbers of four bytes, each in the order of the machine."""
    numbers = [int(words[start : start + 8], 16) for start in range(0, len(words), 8)]
    return str(
        ipaddress.ip_address(b"".join(number.to_bytes(4, sys.byteorder) for number in numbers))
    )


def _owners(proc: Path) -> dict[str, Path]:
    """The process that holds each socket, of the processes that this one may look at."""
    found = {}
    for process in proc.glob("[0-9]*"):
        for link in _links(process / "fd"):
            if link.startswith("socket:["):
                found[link[8:-1]] = process
    return found


def _links(folder: Path) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:  # it has ended, or belongs to somebody else
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # closed since
            yield str(entry.readlink())


def _role(proc: Path, process: Path | None, address: str) -> tuple[Kind, str | None]:
    """What a process is for; its command line may hold secrets, and is not told."""
    if process is None:
        return "other", None
    try:
        command = (
            (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        )
    except OSError:
        return "other", None
    line = " ".join(command)
    if "ray/dashboard/dashboard.py" in line and f"--host={address}" in command:
        return "dashboard", "dashboard"
    if any(part in line for part in ("mlflow server", "mlflow ui", "mlflow.server", "bin/mlflow")):
        return "mlflow", "MLflow"
    for part, name in RAYS.items():
        if part in line:
            return "ray", name
    return ("ray", "driver") if _uses_ray(process) else ("other", _name(command))


def _uses_ray(process: Path) -> bool:
    try:
        return "/ray/_raylet" in (process / "maps").read_text()
    except OSError:
        return False


def _name(command: list[str]) -> str:
    """The program, or what Python runs."""
    program = Path(command[0].split(" ")[0].rstrip(":")).name
    if not program.startswith("python") or len(command) < 2:
        return program
    if command[1] == "-m" and len(command) > 2:
        return command[2]
    return Path(command[1]).name if not command[1].startswith("-") else program
