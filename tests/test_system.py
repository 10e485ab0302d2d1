"""What the system tells of memory, processors, disks and networks, and what is done where it tells
nothing.
"""

import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distvae import system
from distvae.system import (
    available_memory,
    interface_of,
    listen_on_interface_of,
    own_address_towards,
    processor_kind,
    reserve_space,
)
from tests.train.commands import PLAIN, TORCHRUN, command


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the system tells about itself."""
    monkeypatch.setattr(system, "PROC", tmp_path)
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    return tmp_path


MACHINE = "MemTotal:       16000000 kB\nMemAvailable:   4000 kB\n"


@pytest.mark.parametrize(
    ("below", "limit", "used", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_a_container_may_leave_less_than_its_machine(
    told: Path, below: str, limit: str, used: str, prefix: str
) -> None:
    """Its cached files are free."""
    assert available_memory() > 2**28, "what is built in, where the system does not tell"
    (told / "meminfo").write_text(MACHINE)
    assert available_memory() == 4_096_000
    (told / below).mkdir(exist_ok=True)
    (told / below / limit).write_text("3000000\n")
    (told / below / used).write_text("2500000\n")
    assert available_memory() == 500_000
    parts = f"anon 900000\n{prefix}inactive_file 1000000\n{prefix}active_file 500000\n"
    (told / below / "memory.stat").write_text(parts)
    assert available_memory() == 2_000_000
    (told / below / used).write_text("7000000\n")
    assert available_memory() == 0
    (told / below / limit).write_text("max\n")
    assert available_memory() == 4_096_000


def test_an_arm_processor_is_known_by_its_numbers(told: Path) -> None:
    assert processor_kind() == (platform.processor() or platform.machine())
    core = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"
    (told / "cpuinfo").write_text(core.format(0) + "\n" + core.format(1))
    assert processor_kind() == "0x41 0xd0c"


def test_more_than_the_disk_has_is_refused_and_fills_nothing(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        free = os.fstatvfs(file.fileno())
        with pytest.raises(OSError, match="No space left") as refused:
            reserve_space(file.fileno(), (free.f_bavail + 1_000_000) * free.f_frsize)
    assert refused.value.errno == errno.ENOSPC
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_a_file_system_that_tells_no_size_is_used() -> None:
    file = os.memfd_create("space")
    try:
        assert os.fstatvfs(file).f_blocks == 0
        reserve_space(file, 4096)
        assert os.fstat(file).st_size == 4096
    finally:
        os.close(file)


TWO_ADDRESSES = """
import subprocess
from distvae.system import interface_of, own_address_towards
for words in (
    "link set lo up",
    "link add one type veth peer name two",
    "addr add 10.9.8.7/24 dev one",
    "addr add 10.9.8.6/24 dev one",
    "addr add 10.5.0.1/24 dev one",
    "link set one up",
    "link set two up",
):
    subprocess.run(["ip", *words.split()], check=True)
assert own_address_towards("127.0.1.1") is None, "there is no default route"
subprocess.run("ip route add default via 10.5.0.9".split(), check=True)
print(interface_of("10.9.8.7"), interface_of("10.9.8.6"), interface_of("10.9.8.5"))
print(own_address_towards("10.9.8.1"), own_address_towards("127.0.1.1"))
"""
"""A program for a network of its own."""


def test_loopback_is_the_interface_of_its_address() -> None:
    names = [name for _, name in socket.if_nameindex()]
    assert interface_of("127.0.0.1") in names
    assert interface_of("203.0.113.1") is None
    assert interface_of("::1") is None
    assert own_address_towards("no-such-host.invalid") is None


@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is not installed")
def test_an_interface_has_several_addresses_and_a_route_chooses_one() -> None:
    words = ["unshare", "--map-root-user", "--net", sys.executable, "-c", TWO_ADDRESSES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"no network of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one one None\n10.9.8.7 10.5.0.1\n"


def test_an_interface_that_the_environment_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    names, loopback = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface_of("127.0.0.1")
    for given, expected in (
        (("named", ""), ("named", "=named")),
        (("", "other"), (loopback, "other")),
    ):
        for name, value in zip(names, given, strict=True):
            monkeypatch.setenv(name, value)
            if not value:
                monkeypatch.delenv(name)
        listen_on_interface_of("127.0.0.1")
        assert tuple(os.environ[name] for name in names) == expected


WITHOUT_LINUX = """
import os
from pathlib import Path
for means in ("memfd_create", "pidfd_open", "posix_fallocate", "sched_getaffinity"):
    delattr(os, means)
from distvae import system
system.PROC = system.CGROUP = Path("/no/such/folder")
"""
"""Python runs this in every process, before anything else."""
ASK = """
from distvae.system import available_cores, processor_kind, available_memory, peak_memory
import os
assert available_cores() == os.cpu_count()
assert available_memory() > 2**28 and peak_memory() > 2**20
assert processor_kind()
"""
RECIPE = ["bars", "train.epochs=4", "train.schedule=constant", "train.products=blas"]
"""`auto` goes by the kind of the processor, which only Linux tells."""


@pytest.fixture
def without_linux(tmp_path: Path) -> dict[str, str]:
    """The environment of processes on such a system."""
    (tmp_path / "means").mkdir()
    (tmp_path / "means" / "sitecustomize.py").write_text(WITHOUT_LINUX)
    own = str(Path(__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "means"), own])}


def succeed(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [PLAIN, pytest.param(TORCHRUN, marks=pytest.mark.long)], ids=["one", "two"]
)
def test_a_system_that_tells_nothing_has_fallbacks_and_ends_with_the_same_bits(
    start: list[str], without_linux: dict[str, str], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    recipe = [*RECIPE, f"estep.mapped={tmp_path}"]
    succeed([sys.executable, "-c", ASK], without_linux)
    succeed(command(start, recipe, here), {})
    succeed(command(start, [*recipe, "train.epochs=2"], there), without_linux)
    succeed(command(start, recipe, there, "--resume"), without_linux)
    ended, other = (json.loads((run / "last.json").read_text()) for run in (here, there))
    assert ended["sha256"] == other["sha256"]
