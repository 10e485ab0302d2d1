"""Messages about what a training waits for when a machine is lost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distvae.machines.cluster.capacity import count_fitting
from distvae.machines.cluster.node_watch import Machines
from distvae.machines.cluster.nodes import Machine
from distvae.machines.workers.worker_group import WorkerGroup
from distvae.numerics.numbers import counted
from distvae.train.documents import Event


@dataclass(frozen=True)
class TrainingOutlook:
    """Effect of lost machines on a training."""

    group: WorkerGroup
    threads: int
    events: Callable[[], Sequence[Event]]
    """The events of the run so far."""
    shortage: Callable[[], str]
    """What workers need that Ray does not have; '' if they fit."""

    def after_loss(self, name: str, machine: Machine, left: Machines) -> str:
        """Return what is waited for when Ray has declared a machine lost."""
        used = self._use_of(name)
        if used == "workers":
            return f"; training {self._next(left)}"
        if used == "copies":
            return "; the copies that it had are made anew elsewhere"
        return ""

    def while_silent(self, name: str, machine: Machine, left: Machines) -> str:
        """Return what is waited for while a machine does not answer."""
        if machine.is_head:
            return (
                "; Ray's head is there: if it stays away, training ends, and the same command with"
                " --resume continues from what was saved"
            )
        used = self._use_of(name)
        if not used:
            return "; training does not use it"
        waits = "; training waits until it answers or Ray declares it lost, and then"
        if used == "copies":
            return f"{waits} goes on; the copies that it had are made anew elsewhere"
        return f"{waits} {self._next(left)}"

    def _use_of(self, name: str) -> str:
        """Return what a machine has of this training: workers, only copies of some, or nothing."""
        events = self.events()
        if not events:
            return ""
        last = events[-1]
        for use, machines in (("workers", last["machines"]), ("copies", last["copies"])):
            if any(_is_named(name, machine) for machine in machines):
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


def _is_named(name: str, machine: str | None) -> bool:
    """Return whether events mean a machine, whose id is given: they have the beginning of it."""
    return machine is not None and name.startswith(machine.rpartition("-")[2])


def workers_that_fit(machines: Iterable[Machine], group: WorkerGroup, threads: int) -> int:
    """Return how many workers of a group some machines have room for."""
    free = [{"CPU": machine.cpus, "GPU": machine.gpus} for machine in machines]
    needs = {"CPU": float(threads), "GPU": group.gpus or 0.0}
    return min(count_fitting(free, needs), group.max_workers)
