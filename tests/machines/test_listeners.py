"""No command listens on an address that other machines reach, seen from outside in the kernel's own
tables.
"""

import ipaddress
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import distvae
from tests.called import Called
from tests.ports import free_port
from tests.processes import started
from tests.slowly import long, slow
from tests.train.commands import PLAIN, TORCHRUN, command
from tests.train.processes import below

BARS = ["bars", "data.rows=200", "train.epochs=2"]
SPACE = """
about: Two trials on bars.
base: bars
fixed: {data.rows: 200, train.epochs: 1}
metrics: {val_bound: max}
trials: 2
concurrent: 2
axes:
  - {key: model.latent, choice: [8, 10]}
"""
LOOK_SECONDS = 0.3
"""From one look at what listens to the next; a look reads a table of every process."""
LISTENS = "0A"
"""How the kernel's tables say so."""


def listeners(pids: Collection[int]) -> set[str]:
    """The addresses on which some processes listen, each with the number of its port and a part of
    the command.
    """
    held = {inode: pid for pid in pids for inode in sockets(pid)}
    return {
        f"{address} {port} {title(held[inode])}"
        for address, port, inode in listening()
        if inode in held
    }


def sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):  # it has just ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(file.readlink()).removeprefix("socket:[").removesuffix("]")


def title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:60]
    return ""


def listening() -> Iterator[tuple[str, int, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS:
                digits, port = words[1].split(":")
                # words of four bytes, each in the order of the machine
                parts = struct.unpack(f"={len(digits) // 8}I", bytes.fromhex(digits))
                packed = struct.pack(f">{len(parts)}I", *parts)
                yield str(ipaddress.ip_address(packed)), int(port, 16), words[9]


def reachable(listener: str) -> bool:
    found = ipaddress.ip_address(listener.split()[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not (mapped or found).is_loopback


@pytest.mark.slow
def test_an_open_socket_is_seen() -> None:
    code = (
        "import socket, time; s = socket.create_server(('0.0.0.0', 0)); print(flush=True);"
        " time.sleep(60)"
    )
    with started([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        found = listeners([process.pid])
    assert len(found) == 1
    assert all(map(reachable, found))


def watched(words: list[str], enough: str = "") -> set[str]:
    """Return the addresses on which a command listens, until it ends or `enough` is found."""
    found: set[str] = set()
    with started(words, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (
            enough and any(enough in listener for listener in found)
        ):
            found |= listeners([process.pid, *below(process.pid)])
            time.sleep(LOOK_SECONDS)
        if not enough:
            assert process.stderr
            assert process.wait() == 0, process.stderr.read()
    return found


def space(folder: Path) -> str:
    (folder / "small.yaml").write_text(SPACE)
    return str(folder / "small.yaml")


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "alone": lambda here: command(PLAIN, BARS, here / "run"),
    "workers": lambda here: command(PLAIN, BARS, here / "run", "--workers", "2"),
    "sweep": lambda here: [*PLAIN, "tune", space(here), "--out", str(here / "sweep"), "--quiet"],
    "torchrun": lambda here: command(TORCHRUN, BARS, here / "run"),
}


@pytest.mark.parametrize("name", [*slow("workers"), *long("alone", "sweep", "torchrun")])
def test_commands_listen_on_loopback_alone(name: str, tmp_path: Path) -> None:
    """torchrun itself opens a store, but its workers open none."""
    found = watched(COMMANDS[name](tmp_path))
    assert bool(found) == (name != "alone")
    theirs = "torch.distributed.run" if name == "torchrun" else "\0"
    assert not [listener for listener in found if reachable(listener) and theirs not in listener]


@pytest.mark.long
def test_the_tracking_server_listens_on_loopback_alone(
    tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start on; `test_browser` looks when it is ready."""
    package, port = Path(distvae.__file__).parent.parent, free_port()
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)
    assert call("train", *BARS, "--no-evaluate", "--quiet")[0] == 0  # a run to look at
    found = watched([*PLAIN, "ui", "--port", str(port)], f" {port} ")
    assert found
    assert not [listener for listener in found if reachable(listener)]
