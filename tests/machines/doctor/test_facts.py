"""What a machine tells of itself, beside what other programs and the test's own sockets say."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import distvae
from distvae.machines.doctor.facts import cpu_quota, disk_space, gather_facts, source_digest
from distvae.machines.doctor.sockets import is_open, list_listeners


def test_facts_are_plain_data() -> None:
    facts = gather_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["source"]["folder"] == str(Path(distvae.__file__).parent)


@pytest.mark.slow
def test_a_machine_without_this_package_can_be_asked() -> None:
    """What is sent to it holds all it needs."""
    code = (
        "import sys\nfrom ray import cloudpickle\nimport distvae\n"
        "from distvae.machines.doctor.facts import gather_facts\n"
        "cloudpickle.register_pickle_by_value(distvae)\nsys.stdout.buffer.write(cloudpickle.dumps(gather_facts))"
    )
    sent = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    asked = (
        "import sys, pickle, json\nclass No:\n def find_spec(self, name, *_):\n"
        "  if name.startswith('distvae'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "print(json.dumps(pickle.load(sys.stdin.buffer)()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], input=sent, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["host"] == gather_facts()["host"]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens")
@pytest.mark.parametrize(
    ("family", "address", "reached"),
    [
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET6, "::1", False),
        (socket.AF_INET6, "::", True),
    ],
)
def test_a_socket_of_ones_own_is_found(
    family: socket.AddressFamily, address: str, reached: bool
) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"no {family.name} here")
        listener.listen()
        port = listener.getsockname()[1]
        [found] = [entry for entry in list_listeners() or [] if entry["port"] == port]
    assert found["address"] == address
    assert found["process"]
    assert is_open(address) == reached
    assert port not in [entry["port"] for entry in list_listeners() or []]


def process(proc: Path, number: int, *command: str, inode: int = 7) -> None:
    """A process as the kernel shows it, with a socket."""
    folder = proc / str(number)
    (folder / "fd").mkdir(parents=True)
    (folder / "fd" / "3").symlink_to(f"socket:[{inode}]")
    (folder / "cmdline").write_bytes("\0".join(command).encode() + b"\0")


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        (
            ["python", "/x/ray/dashboard/dashboard.py", "--host=127.0.0.1", "--port=8265"],
            "dashboard",
            "dashboard",
        ),
        (
            ["python", "/x/ray/dashboard/dashboard.py", "--host=10.0.0.1", "--port=8265"],
            "ray",
            "metrics",
        ),
        (["/x/ray/core/src/ray/raylet/raylet", "--token=secret"], "ray", "raylet"),
        (["ray::RuntimeEnvAgent"], "ray", "agent"),
        (["ray::IDLE"], "ray", "worker"),
        (["python", "-m", "mlflow.server.gunicorn"], "mlflow", "MLflow"),
        (["python3.11", "/home/me/serve.py", "--password=secret"], "other", "serve.py"),
        (["python", "-m", "http.server"], "other", "http.server"),
        (["python", "-c", "secret()"], "other", "python"),
        (["sshd: /usr/sbin/sshd -D [listener]"], "other", "sshd"),
    ],
)
def test_processes_are_told_by_what_they_are_and_never_by_their_arguments(
    tmp_path: Path, command: list[str], kind: str, name: str
) -> None:
    (tmp_path / "net").mkdir()
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
        " inode\n"
    )
    loopback = int.from_bytes(bytes([127, 0, 0, 1]), sys.byteorder)
    line = (
        f"   0: {loopback:08X}:2049 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 7"
        " 1 0 100 0 0 10 0\n"
    )
    talking = (
        f"   1: {loopback:08X}:2050 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 8"
        " 1 0 100 0 0 10 0\n"
    )
    (tmp_path / "net" / "tcp").write_text(head + line + talking)
    process(tmp_path, 42, *command)
    assert list_listeners(tmp_path) == [
        {"address": "127.0.0.1", "port": 8265, "process": name, "kind": kind}
    ]


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert list_listeners(tmp_path) is None


def test_the_limits_of_a_container(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None


def test_a_digest_is_of_the_source_alone(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "part").mkdir(parents=True)
        (tmp_path / name / "part" / "a.py").write_text("a = 1\n")
    (tmp_path / "one" / "__pycache__").mkdir()
    (tmp_path / "one" / "__pycache__" / "a.pyc").write_bytes(os.urandom(8))
    (tmp_path / "one" / "checkout" / "cluster").mkdir(parents=True)  # as in an installed package
    (tmp_path / "one" / "checkout" / "cluster" / "aws.yaml").write_text("max_workers: 8\n")
    assert source_digest(tmp_path / "one") == source_digest(tmp_path / "other")
    (tmp_path / "one" / "part" / "a.py").write_text("a = 2\n")
    assert source_digest(tmp_path / "one") != source_digest(tmp_path / "other")


def test_the_room_behind_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    space, expected = disk_space(tmp_path / "a" / "b"), os.statvfs(tmp_path)
    assert space is not None
    assert space["total"] == expected.f_blocks * expected.f_frsize
