"""Two machines in one: network namespaces, and a link between them that may be slow."""

import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from distvae.files.refusal import Refusal

DEVICE = "eth0"
"""The name of each machine's end of the link."""
NETWORK = "10.78.32"
FIRST_PORT = 29500
"""A port of the first machine, where the workers of a training meet."""
BURST = "256kb"
"""The bytes that a link of limited rate sends at once: more than any packet has."""
QUEUE = "200ms"
"""How long a packet may wait for its turn; it is lost after that."""
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x1, 0x2
"""Numbers of Linux (linux/if_tun.h). With these offloads one packet carries up to 64 KB, and TCP
still counts in packets of 1500 bytes.
"""


class Link(NamedTuple):
    """Rate and delay of a link, in each direction."""

    mbits: float | None = None
    """Megabits per second; None sets no limit."""
    delay_ms: float = 0.0
    """Milliseconds that a packet travels."""

    @property
    def name(self) -> str:
        """Return the limits in words."""
        rate = "no limit" if self.mbits is None else f"{self.mbits:g} Mbit/s"
        return f"{rate}, {self.delay_ms:g} ms"


class Machine(NamedTuple):
    """A namespace that stands for a machine."""

    namespace: str
    rank: int

    @property
    def address(self) -> str:
        """Return its address on the link."""
        return f"{NETWORK}.{self.rank + 1}"

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words of a command that runs there, where it sees its own processes only."""
        separate = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        variables = [f"GLOO_SOCKET_IFNAME={DEVICE}", "TORCH_CPP_LOG_LEVEL=ERROR"]
        return ["ip", "netns", "exec", self.namespace, *separate, "env", *variables, *words]

    def torchrun(self, workers: int, training: int) -> list[str]:
        """Return the words that start so many workers there, of one of several trainings."""
        options = {
            "nnodes": 2,
            "nproc-per-node": workers,
            "node-rank": self.rank,
            "master-addr": f"{NETWORK}.1",
            "master-port": FIRST_PORT + training,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "torch.distributed.run", *words]

    def sent_bytes(self) -> int:
        """Return the bytes that it has sent over the link."""
        shown = json.loads(_run("ip", "-n", self.namespace, "-j", "-s", "link", "show", DEVICE))
        return int(shown[0]["stats64"]["tx"]["bytes"])


@contextmanager
def two_machines(link: Link) -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines with a link between them; afterwards nothing is left of them."""
    first, second = (Machine(f"distvae-{os.getpid()}-{rank}", rank) for rank in range(2))
    with ExitStack() as stack:
        for machine in (first, second):
            _run("ip", "netns", "add", machine.namespace)
            stack.callback(_run, "ip", "netns", "del", machine.namespace)
        ends = (f"dv{os.getpid()}a", f"dv{os.getpid()}b")
        if link == Link():
            _run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        else:
            files = [stack.enter_context(_tun(end)) for end in ends]
            stack.enter_context(_relay(link.delay_ms / 1000, files))
        for machine, end in zip((first, second), ends, strict=True):
            _attach(machine, end, link)
        yield first, second


def _attach(machine: Machine, end: str, link: Link) -> None:
    """Give a machine its end of a link, with an address and a limit."""
    inside = ("ip", "-n", machine.namespace)
    _run("ip", "link", "set", end, "netns", machine.namespace, "name", DEVICE)
    _run(*inside, "addr", "add", f"{machine.address}/24", "dev", DEVICE)
    for name in ("lo", DEVICE):
        _run(*inside, "link", "set", name, "up")
    if link.mbits is not None:
        limit = ("tbf", "rate", f"{link.mbits:g}mbit", "burst", BURST, "latency", QUEUE)
        _run("tc", "-n", machine.namespace, "qdisc", "add", "dev", DEVICE, "root", *limit)


@contextmanager
def _tun(name: str) -> Iterator[int]:
    """Yield the file of a new TUN device, from which its packets are read without blocking."""
    try:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise Refusal(f"/dev/net/tun: {error.strerror}; a slow link needs it") from error
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(file, TUNSETIFF, request)
        fcntl.ioctl(file, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        yield file
    finally:
        os.close(file)


@contextmanager
def _relay(delay: float, files: Sequence[int]) -> Iterator[None]:
    """Let a process carry the packets between two devices."""
    words = [sys.executable, "-m", "distvae.bench.relay", str(delay), *map(str, files)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=files):
        yield


def _run(*words: str) -> str:
    """Return what a command prints; refuse to go on if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Refusal(f"{words[0]}: not found; network namespaces need iproute2") from error
    if done.returncode:
        why = done.stderr.strip() or f"ended with {done.returncode}"
        raise Refusal(
            f"{' '.join(words[:3])}: {why}; network namespaces need root, and in a container"
            " CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    return done.stdout
