"""More keepers for workers, where the machines allow it: one on another machine than the worker's,
and a second one on its own.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from distvae.machines.cluster.nodes import live_machines
from distvae.machines.copies.assignment import machines_for_more
from distvae.machines.copies.keepers import KeeperRoll, ask_all, launch_keepers, machines_in_turn
from distvae.machines.ray_api import ActorHandle, RayApi
from distvae.train.documents import Event

LOOK_SECONDS = 3.0
"""Seconds between two looks at where workers and keepers are."""
ATTEMPTS = 3
"""How often keepers are started for the same workers and machines."""


class KeeperMoves:
    """The keepers of a training, as its driver starts them: some at the beginning, some later.

    Workers find the new ones by their names, fill them, and end those that are too many.
    """

    def __init__(
        self, ray: RayApi, owner: str, mapped: str | None, events: Callable[[], Sequence[Event]]
    ) -> None:
        self.ray, self.events = ray, events
        self.owner, self.mapped = owner, mapped
        self.handles: list[ActorHandle] = []
        """Ray ends an actor that nobody refers to."""
        self.state: tuple[frozenset[str], int] | None = None
        """The machines and the number of events at the last look."""
        self.attempts = 0
        """How often keepers may still be started for that state."""
        self.closed = threading.Event()

    def launch(self, count: int) -> None:
        """Start some keepers, on each machine in turn."""
        self._launch(machines_in_turn(self.ray, count))

    def _launch(self, machines: Sequence[str]) -> None:
        """Start a keeper on each of some machines."""
        first = len(self.handles)
        self.handles += launch_keepers(machines, self.mapped, self.owner, first)

    def __enter__(self) -> "KeeperMoves":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(LOOK_SECONDS):
            with suppress(Exception):  # Ray's head does not answer; the driver notices
                self.look()

    def look(self) -> None:
        """Start keepers that workers lack, if machines or workers have changed."""
        machines = {
            name[:8]: name for name, machine in live_machines(self.ray).items() if machine.cpus
        }
        events = self.events()
        state = frozenset(machines), len(events)
        if state != self.state:
            self.state, self.attempts = state, ATTEMPTS
        if not events or not self.attempts:
            return
        roll = KeeperRoll(self.owner)
        keepers = ask_all([roll.handle(name) for name in roll.names()], "machine", "")
        if "" in keepers:  # one of them is starting
            return
        workers = [_number(machine) for machine in events[-1]["machines"]]
        found = machines_for_more(workers, [_number(name) for name in keepers], list(machines))
        self._launch([machines[name] for name in found])
        self.attempts = self.attempts - 1 if found else 0


def _number(machine: str) -> str:
    """Return the beginning of Ray's id of a machine, with which its name in events ends."""
    return machine.rpartition("-")[2]
