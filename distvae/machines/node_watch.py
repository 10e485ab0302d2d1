"""A watch over the machines of a training. It tells which machine is lost, silent or new, which
resources are missing, and how training goes on.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distvae.machines.cluster import Machine, count_fitting
from distvae.machines.worker_group import WorkerGroup
from distvae.numerics.numbers import counted
from distvae.train.documents import Event

WATCH_INTERVAL = 2.0
"""Seconds between two looks at Ray's list of machines."""
PING_INTERVAL = 1.0
"""Seconds between two pings."""
PING_SECONDS = 2.0
"""Seconds in which a process has to answer a ping."""
SILENT_SECONDS = 5.0
"""Seconds without an answer after which a machine is silent."""
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
"""The method of Ray's own processes that Ray's head calls too."""

Machines = Mapping[str, Machine]
"""Machines by id."""


@dataclass(frozen=True)
class Outlook:
    """Effect of lost machines on a training."""

    group: WorkerGroup
    threads: int
    events: Callable[[], Sequence[Event]]
    """The events of the run so far."""
    shortage: Callable[[], str]
    """The resources that the workers lack; '' if the workers fit."""

    def after_loss(self, name: str, left: Machines) -> str:
        """Return how training goes on when Ray has declared a machine lost."""
        used = self._use_of(name)
        if used == "workers":
            return f"; training {self._next(left)}"
        if used == "copies":
            return "; workers have other snapshots on their own machines"
        return ""

    def while_silent(self, name: str, machine: Machine, left: Machines) -> str:
        """Return how training goes on while a machine does not answer."""
        if machine.is_head:
            return (
                "; Ray's head is there: if it stays away, training ends, and the same command with"
                " --resume continues from what was saved"
            )
        used = self._use_of(name)
        if not used:
            return "; training does not use it"
        if used == "copies":
            return "; workers have other snapshots on their own machines"
        waits = "; training waits until it answers or Ray declares it lost, and then"
        return f"{waits} {self._next(left)}"

    def _use_of(self, name: str) -> str:
        """Return what a machine has of this training: workers, only snapshots, or nothing."""
        events = self.events()
        if events:
            for use, machines in (
                ("workers", events[-1]["machines"]),
                ("copies", events[-1]["copies"]),
            ):
                if any(is_named(name, machine) for machine in machines):
                    return use
        return ""

    def _next(self, left: Machines) -> str:
        """Return how training goes on with the machines that are left."""
        workers = workers_that_fit(left.values(), self.group, self.threads)
        if workers >= self.group.min_workers:
            return f"goes on with {counted(workers, 'worker')}"
        missing = self.group.min_workers - workers
        gpus = self.group.gpus or 0.0
        needed = counted(missing * self.threads, "more CPU")
        if gpus:
            needed += f" and {missing * gpus:g} GPUs"
        verb = "needs" if missing == 1 else "need"
        return f"waits for machines with {needed}, which {counted(missing, 'worker')} {verb}"


def is_named(node: str, machine: str | None) -> bool:
    """Return whether a name in events is the name of a machine, which is given by Ray's id."""
    return machine is not None and node.startswith(machine.rpartition("-")[2])


def workers_that_fit(machines: Iterable[Machine], group: WorkerGroup, threads: int) -> int:
    """Return how many workers of a group some machines have room for."""
    free = [{"CPU": machine.cpus, "GPU": machine.gpus} for machine in machines]
    needs = {"CPU": float(threads), "GPU": group.gpus or 0.0}
    return min(count_fitting(free, needs), group.max_workers)


class NodeWatch:
    """A watch that reports machines that are lost or have joined, and missing resources.

    It runs in a thread, because Ray does not answer for a minute after its head was lost. Another
    thread pings the machines that Ray has listed last.
    """

    def __init__(
        self,
        list_machines: Callable[[], Machines],
        outlook: Outlook,
        ping: Callable[[Machines], Collection[str]] | None = None,
    ) -> None:
        self.list_machines, self.outlook = list_machines, outlook
        self.machines, self.missing = dict(list_machines()), ""
        self.silence = SilenceWatch(ping, outlook) if ping else None
        self.unread: deque[str] = deque()
        self.closed = threading.Event()

    def __enter__(self) -> "NodeWatch":
        threading.Thread(target=self._watch, daemon=True).start()
        if self.silence is not None:
            threading.Thread(target=self._ping, args=[self.silence], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(WATCH_INTERVAL):
            # If Ray's head does not answer, the thread that waits for the workers notices.
            with suppress(Exception):
                self.unread.extend(self.describe_changes())

    def _ping(self, silence: "SilenceWatch") -> None:
        while not self.closed.wait(PING_INTERVAL):
            with suppress(Exception):  # a connection that could not be opened
                self.unread.extend(silence.describe_changes(self.machines))

    def describe_changes(self) -> list[str]:
        """Return a sentence for each change since the last call."""
        machines, missing = dict(self.list_machines()), self.outlook.shortage()
        changes = []
        for name, machine in self.machines.items():
            if name not in machines:
                outlook = self.outlook.after_loss(name, machines)
                changes.append(f"machine {machine.address} is lost{outlook}")
        for name, machine in machines.items():
            if name not in self.machines:
                changes.append(f"machine {machine.address} has joined")
        if missing and missing != self.missing:
            changes.append(f"{missing}; training continues when they fit")
        self.machines, self.missing = machines, missing
        return changes

    def take_messages(self) -> Iterator[str]:
        """Yield the sentences that nobody has read."""
        while self.unread:
            yield self.unread.popleft()


class SilenceWatch:
    """A watch that reports machines that do not answer pings, and machines that answer again."""

    def __init__(
        self,
        ping: Callable[[Machines], Collection[str]],
        outlook: Outlook,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ping, self.outlook, self.clock = ping, outlook, clock
        self.answered: dict[str, float] = {}
        """When each machine answered last."""
        self.silent: set[str] = set()

    def describe_changes(self, machines: Machines) -> list[str]:
        """Ping machines; return a sentence for each machine that begins or ends to be silent."""
        answering, now = self.ping(machines), self.clock()
        self.answered = {name: self.answered.get(name, now) for name in machines}
        self.answered |= dict.fromkeys(answering, now)
        silent = {name for name, last in self.answered.items() if now - last >= SILENT_SECONDS}
        changes = []
        for name in sorted(silent - self.silent):
            left = {other: machines[other] for other in machines.keys() - silent}
            outlook = self.outlook.while_silent(name, machines[name], left)
            seconds = now - self.answered[name]
            address = machines[name].address
            changes.append(f"machine {address} has not answered for {seconds:.0f} s{outlook}")
        for name in sorted((self.silent - silent) & machines.keys()):
            changes.append(f"machine {machines[name].address} answers again")
        self.silent = silent
        return changes


class Pings:
    """Connections to Ray's own process on each machine; a refusal by a process is an answer too.

    Ray's head asks these processes too, but declares a machine lost only after half a minute.
    """

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}

    def __call__(self, machines: Machines) -> set[str]:
        """Return the machines that answer, by id; it takes at most `PING_SECONDS`."""
        import grpc

        for name in self.channels.keys() - machines.keys():
            self.channels.pop(name).close()
        for name in machines.keys() - self.channels.keys():
            address = f"{machines[name].address}:{machines[name].port}"
            options = [("grpc.max_reconnect_backoff_ms", 1000)]
            self.channels[name] = grpc.insecure_channel(address, options)
        pending = {
            name: self.channels[name].unary_unary(HEALTH_METHOD).future(b"", timeout=PING_SECONDS)
            for name in machines
        }
        errors = {name: call.exception() for name, call in pending.items()}
        unanswered = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        return {
            name
            for name, error in errors.items()
            if error is None or error.code().name not in unanswered
        }
