"""A watch over the machines of a cluster: what is lost, does not answer, has joined, or lacks."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from distvae.machines.cluster.nodes import Machine

WATCH_INTERVAL = 2.0
"""Seconds between two looks at Ray's list of machines."""
PING_INTERVAL = 1.0
"""Seconds between two pings."""
SILENT_SECONDS = 5.0
"""Seconds without an answer after which a machine is silent."""

Machines = Mapping[str, Machine]
"""Machines by id."""


class Outlook(Protocol):
    """Effect of lost machines on a job."""

    def shortage(self) -> str:
        """Return what workers need that Ray does not have; '' if they fit."""

    def after_loss(self, name: str, machine: Machine, left: Machines) -> str:
        """Return what is waited for when Ray has declared a machine lost."""

    def while_silent(self, name: str, machine: Machine, left: Machines) -> str:
        """Return what is waited for while a machine does not answer."""


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
                outlook = self.outlook.after_loss(name, machine, machines)
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
    """A watch that reports machines that do not answer pings, and those that answer again."""

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
        """Ping some machines; return a sentence for each that begins or ends to be silent."""
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
