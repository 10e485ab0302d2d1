"""Machines before Ray runs on them, by sshd's of this user: each way to fail is told apart, with
what to do.
"""

import fcntl
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from distvae.machines.doctor.cluster_file import examine_cluster_file
from distvae.machines.doctor.diagnosis import Diagnosis
from tests.ports import free_port

pytestmark = pytest.mark.slow

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
MACHINES = ("127.0.0.1", "127.0.0.2")
TOOLS = ("awk", "bash", "date", "df", "flock", "head", "ls", "mkdir", "printf", "rm", "sed", "tr")
PYTHON = f"python3.{sys.version_info.minor}"
SETTINGS = """
ListenAddress {address}
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
SetEnv HOME={home}
"""
SSH = """#!/bin/sh
case "$*" in *UserKnownHostsFile*) ;; *) set -- -o UserKnownHostsFile={folder}/known "$@" ;; esac
exec {ssh} -F none -o GlobalKnownHostsFile=none -p {port} "$@"
"""


@dataclass
class Lab:
    """Two machines in one, each with a home folder of its own, and the folder of who logs in."""

    folder: Path
    port: int

    def home(self, address: str) -> Path:
        return self.folder / address

    def known(self, key: str) -> None:
        """Say by which key all machines are known."""
        line = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known").write_text(
            "".join(f"[{address}]:{self.port} {line}" for address in MACHINES)
        )

    def look(self, storage: str, *addresses: str, key: str = "user") -> dict[str, list[Diagnosis]]:
        """What the doctor says, by subject, of a file with these machines."""
        head, *workers = addresses or MACHINES
        config = {
            "cluster_name": "lab",
            "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
            "auth": {"ssh_user": getpass.getuser(), "ssh_private_key": str(self.folder / key)},
            "setup_commands": [
                f"{PYTHON} -m venv env",
                f"echo export RAY_AUTH_MODE=token DISTVAE_STORAGE={storage} > ~/.lab",
            ],
            "head_start_ray_commands": [
                "RAY_enable_autoscaler_v2=0 ray start --head --autoscaling-config=x"
            ],
        }
        file = self.folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(config))
        lines: dict[str, list[Diagnosis]] = {}
        for line in examine_cluster_file(file, None):
            lines.setdefault(line.what, []).append(line)
        return lines


def key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def equip(home: Path, without: tuple[str, ...] = ()) -> None:
    """Give a machine its programs."""
    programs = home / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir(parents=True)
    for name in {*TOOLS, "pgrep", "rsync"} - set(without):
        (programs / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not installed"))
    if PYTHON not in without:
        (programs / PYTHON).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / PYTHON).chmod(0o755)
    (home / ".bash_profile").write_text(f"export PATH={programs}\necho Welcome\n")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    ssh = shutil.which("ssh")
    if SSHD is None or ssh is None:
        pytest.skip("sshd is not installed (openssh-server)")
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder, free_port())
    for name in ("host", "other", "user", "stranger"):
        key(folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the system's own start of sshd does
    servers = []
    for address in MACHINES:
        lab.home(address).mkdir()
        settings = folder / f"{address}.conf"
        settings.write_text(
            SETTINGS.format(address=address, port=lab.port, folder=folder, home=lab.home(address))
        )
        servers.append(
            subprocess.Popen(
                [SSHD, "-D", "-E", str(lab.home(address) / "log"), "-f", str(settings)]
            )
        )
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(SSH.format(folder=folder, ssh=ssh, port=lab.port))
    wrapper.chmod(0o755)
    try:
        for address, server in zip(MACHINES, servers, strict=True):
            if not _listens(address, lab.port, server):
                pytest.skip(
                    f"no sshd of one's own here: {(lab.home(address) / 'log').read_text().strip()}"
                )
        yield lab
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def _listens(address: str, port: int, server: "subprocess.Popen[bytes]") -> bool:
    while server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex((address, port)) == 0:
                return True
    return False


@pytest.fixture
def lab(running: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PATH", f"{running.folder / 'bin'}:{os.environ['PATH']}")
    running.known("host")
    for address in MACHINES:
        equip(running.home(address))
    return running


@pytest.mark.long
def test_machines_without_fault_have_no_bad_line_and_nothing_is_left(lab: Lab) -> None:
    by_subject = lab.look(str(lab.folder / "shared"))
    assert [
        line for lines in by_subject.values() for line in lines if line.state in ("bad", "note")
    ] == []
    assert {"file", "ssh", "rsync", "pgrep", "Python", "disk", "clock", "storage"} <= set(
        by_subject
    )
    assert by_subject["Python"][0].where == "all 2"
    assert list((lab.folder / "shared").iterdir()) == []


def test_what_a_machine_lacks_is_said_with_its_name(lab: Lab) -> None:
    first, second = MACHINES
    equip(lab.home(second), without=("rsync", "pgrep", PYTHON))
    (lab.home(first) / ".distvae").mkdir(exist_ok=True)
    lock = lab.home(first) / ".distvae" / "running"
    with lock.open("w") as file:
        file.write("distvae tune speech\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        by_subject = lab.look("~/own")
    lock.unlink()
    rsync, pgrep, python = (
        next(line for line in by_subject[what] if line.where == second)
        for what in ("rsync", "pgrep", "Python")
    )
    assert rsync.state == pgrep.state == python.state == "bad"
    assert rsync.found.startswith("missing")
    assert "procps" in pgrep.remedy
    assert python.found == f"no {PYTHON}"
    assert by_subject["running"][0].state == "bad"
    assert "distvae tune speech" in by_subject["running"][0].found
    blind = [line for line in by_subject["storage"] if line.state == "bad"]
    assert [line.where for line in blind] == [first, second]
    assert f"what {second} writes there is not seen by {first}" in blind[0].found
    for address in MACHINES:
        assert list((lab.home(address) / "own").iterdir()) == []


@pytest.mark.long
def test_a_lock_that_nobody_holds_is_no_training(lab: Lab) -> None:
    folder = lab.home(MACHINES[0]) / ".distvae"
    folder.mkdir(exist_ok=True)
    (folder / "running").write_text("one that was killed")
    assert "running" not in lab.look("s3://bucket/runs", MACHINES[0])


@pytest.mark.long
def test_ways_not_to_get_in_are_told_apart(lab: Lab) -> None:
    silent = lab.look("s3://bucket/runs", MACHINES[0], "127.0.0.3")["ssh"]
    assert {line.where: line.state for line in silent} == {MACHINES[0]: "ok", "127.0.0.3": "bad"}
    assert "nothing answers" in silent[1].found

    [refused] = lab.look("s3://bucket/runs", MACHINES[0], key="stranger")["ssh"]
    assert refused.state == "bad"
    assert str(lab.folder / "stranger") in refused.found

    lab.known("other")
    [changed] = lab.look("s3://bucket/runs", MACHINES[0])["ssh"]
    assert changed.state == "bad"
    assert "not the one in known_hosts" in changed.found

    (lab.folder / "known").write_text("")
    stranger, entered = lab.look("s3://bucket/runs", MACHINES[0])["ssh"]
    assert (stranger.state, entered.state) == ("note", "ok")
    assert "unknown" in stranger.found

    (lab.folder / "user").chmod(0o644)
    lab.known("host")
    [unprotected] = lab.look("s3://bucket/runs", MACHINES[0])["ssh"]
    (lab.folder / "user").chmod(0o600)
    assert unprotected.remedy == f"chmod 600 {lab.folder / 'user'}"
