"""Hosts on this machine: namespaces with a disk, an address and an sshd of their own; they share
one folder.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NETWORK = "10.78.31"
BRIDGE = "distvae0"
NAMES = {"head": 10, "one": 11, "two": 12, "other": 13}
NEEDED = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync", "mount")
SSH = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3", "-o", "BatchMode=yes"),
)
DISK = "6g"
TRIED = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/scratch /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/scratch overlay /mnt/root
ip link add bridge type bridge
ip link add one type veth peer name two
"""


def lacking() -> str:
    """Why there can be no hosts here, or nothing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if not shutil.which(name, path=path)]:
        return f"hosts need {', '.join(missing)}: apt-get install openssh-server rsync iproute2"
    if os.geteuid():
        return "hosts need root"
    spaces = ["--mount", "--net", "--pid", "--uts", "--ipc"]
    separate = ["unshare", *spaces, "--fork", "bash", "-ec", TRIED]
    tried = subprocess.run(separate, capture_output=True, text=True, check=False)
    if tried.returncode:
        why = tried.stderr.strip().splitlines()[-1:]
        return (
            "hosts need CAP_SYS_ADMIN and CAP_NET_ADMIN, as in a privileged container:"
            f" {' '.join(why)}"
        )
    return ""


def run(*words: object) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr or done.stdout}"
    return done.stdout


@dataclass
class Host:
    """One of them."""

    name: str
    folder: Path
    _first: int = 0
    """Its first process, whose end ends all others."""
    _outer: "subprocess.Popen[bytes] | None" = None
    """Who waits for that end here."""

    @property
    def address(self) -> str:
        return f"{NETWORK}.{NAMES[self.name]}"

    @property
    def space(self) -> str:
        return f"distvae-{self.name}"

    def start(self) -> None:
        """Switch it on. Files that it wrote earlier are still there."""
        disk = self.folder / self.name
        if not disk.is_mount():
            disk.mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", f"size={DISK}", self.space, disk)
        ends = f"{self.space} type veth peer name eth0 netns {self.space}"
        address = f"02:00:00:00:00:{NAMES[self.name]:02x}"
        for words in (
            f"netns add {self.space}",
            f"link add {ends}",
            f"link set {self.space} master {BRIDGE} up",
            f"-n {self.space} link set eth0 address {address}",
            f"-n {self.space} link set lo up",
            f"-n {self.space} addr add {self.address}/24 dev eth0",
            f"-n {self.space} link set eth0 up",
            f"-n {self.space} route add default via {NETWORK}.254",
        ):
            run("ip", *words.split())
        interpreter = Path(os.path.realpath(sys.executable)).parent
        separate = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc"]
        first = ["bash", HERE / "host.sh", self.name, disk, self.folder / "shared", interpreter]
        first += [sys.prefix, ROOT, sys.prefix]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._outer = outer = subprocess.Popen(
                ["ip", "netns", "exec", self.space, *separate, *map(str, first)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_for(lambda: bool(_children(outer.pid)), 10, f"{self.name} has no first process")
        self._first = _children(outer.pid)[0]
        wait_for(lambda: self.ssh("true").returncode == 0, 20, f"{self.name} does not answer")

    def ssh(
        self, command: str, *options: str, timeout: float | None = 120
    ) -> "subprocess.CompletedProcess[str]":
        """Run something there, as somebody who logs in does."""
        words = ["ssh", "-i", str(self.folder / "key"), *SSH, *options, f"root@{self.address}"]
        inside = f"bash --login -c -i {_quoted('source ~/.bashrc 2>/dev/null; ' + command)}"
        return subprocess.run(
            [*words, inside], capture_output=True, text=True, timeout=timeout, check=False
        )

    def does(self, command: str) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.ssh(command)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def cut_off(self) -> None:
        """Pull its cable."""
        run("ip", "link", "set", self.space, "down")

    def power_off(self) -> None:
        """Cut its power."""
        if self._first:
            with suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)
            wait_for(
                lambda: not Path(f"/proc/{self._first}").exists(), 10, f"{self.name} does not end"
            )
            self._first = 0
        if self._outer:
            self._outer.wait(10)
        for words in (["link", "del", self.space], ["netns", "del", self.space]):
            subprocess.run(["ip", *words], capture_output=True, check=False)

    def copy(self, other: "Host", path: str) -> None:
        """Bring a folder of another's disk to this one's, while it is switched off."""
        ours, theirs = (each.folder / each.name / "upper" / path for each in (self, other))
        run("cp", "-a", theirs, ours)

    def remove(self) -> None:
        """Take it away with its disk."""
        self.power_off()
        disk = self.folder / self.name
        if disk.is_mount():
            run("umount", "-l", disk)


@contextmanager
def hosts(folder: Path, wheels: Path) -> Iterator[dict[str, Host]]:
    """Some hosts that install from a folder of wheels; afterwards nothing is left of them."""
    assert not left(), (
        "hosts of a run under way or killed; if killed, 'umount -l' and 'ip link del'"
        f" these:\n{left()}"
    )
    shared_folder = folder / "shared"
    shutil.copytree(wheels, shared_folder / "wheels", copy_function=os.link)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    shutil.copy(folder / "key.pub", shared_folder)
    made = {name: Host(name, folder) for name in NAMES}
    (shared_folder / "hosts").write_text(
        "".join(f"{host.address} {name}\n" for name, host in made.items())
    )
    try:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for host in made.values():
            host.start()
        yield made
    finally:
        for host in made.values():
            host.remove()
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def left() -> str:
    """Return the traces of hosts on this machine."""
    shown = (
        run("ip", "netns", "list") + run("ip", "-brief", "link") + Path("/proc/mounts").read_text()
    )
    return "\n".join(line for line in shown.splitlines() if "distvae" in line)


def wait_for(
    what: Callable[[], object], seconds: float, otherwise: str, pause: float = 0.2
) -> None:
    """Wait at most `seconds` until a condition is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, otherwise
        time.sleep(pause)


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\"'\"'") + "'"
