"""What the trials of a sweep run on: processors and GPUs of each, and how many fit side by side."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from distvae.files.refusal import Refusal
from distvae.machines.autoscaler import requested_resources
from distvae.machines.worker_group import (
    POLL_SECONDS,
    WorkerGroup,
    checked_wait,
    gpus_per_process,
    refuse_gpu_share,
    refuse_hidden_gpus,
    suggest_gpu_options,
)

LIGHT = {"memory": 1.0}
"""What the process of a trial asks for whose workers train: Tune wants it to ask for something."""
MachineResources = Sequence[Mapping[str, float]]
"""What each has."""


@dataclass(frozen=True)
class TrialResources:
    """What each trial gets, and where from."""

    group: WorkerGroup | None = None
    """The workers of a trial; without them its own process trains."""
    gpus: float | None = None
    """Of a trial without workers; not said: an equal part of what there is."""
    address: str | None = None
    """Of a Ray that runs; without one it is started here."""
    wait: float = 0.0
    """Seconds to wait for machines that are still to come."""

    @classmethod
    def parse(
        cls,
        workers: str,
        gpus_per_worker: float | None,
        gpus_per_trial: float | None,
        address: str | None,
        wait: float,
    ) -> "TrialResources":
        """From the options of a command line."""
        group = None if workers == "0" else WorkerGroup.parse(workers, gpus_per_worker)
        if group and gpus_per_trial is not None:
            raise Refusal(
                "--gpus-per-trial: trials of --workers have the GPUs of these; --gpus-per-worker"
                " expected"
            )
        if gpus_per_worker and not group:
            raise Refusal(
                "--gpus-per-worker: there are no workers; --workers N, or --gpus-per-trial expected"
            )
        refuse_gpu_share("--gpus-per-trial", gpus_per_trial)
        return cls(group, gpus_per_trial, address, checked_wait(wait))

    @property
    def workers(self) -> int:
        """Processes of a trial that compute."""
        return self.group.max_workers if self.group else 1

    def refuse_hidden(self, device: str) -> None:
        """Refuse to train on GPUs that are to be hidden."""
        if self.group:
            refuse_hidden_gpus("--gpus-per-worker", self.group.gpus, device)
        refuse_hidden_gpus("--gpus-per-trial", self.gpus, device)

    def settled(self, machines: MachineResources, device: str) -> "TrialResources":
        """Return the same with the GPUs of each worker or trial, for a `train.device` and by what
        the machines have.
        """
        there = _sum(machines, "GPU")
        if self.group:
            return replace(
                self,
                group=replace(self.group, gpus=gpus_per_process(self.group.gpus, device, there)),
            )
        equal_parts = self.gpus is None and device != "cpu" and there
        return (
            self if equal_parts else replace(self, gpus=gpus_per_process(self.gpus, device, there))
        )

    def each(self, threads: int) -> dict[str, float]:
        """What each of them takes."""
        return {"CPU": threads, "GPU": (self.group.gpus if self.group else self.gpus) or 0.0}

    def room(self, machines: MachineResources, threads: int) -> int:
        """How many trials fit side by side; workers of one may be on several machines."""
        places = sum(_times(machine, self.each(threads)) for machine in machines)
        least = self.group.min_workers if self.group else 1
        return max(places // self.workers, int(places >= least))

    def process(self, machines: MachineResources, threads: int, slots: int) -> dict[str, float]:
        """What the process of a trial asks for."""
        if self.group:
            return LIGHT
        gpus = _share(int(_sum(machines, "GPU")), slots) if self.gpus is None else self.gpus
        return {"cpu": threads, "gpu": gpus}

    def instead(self, machines: MachineResources, device: str) -> str:
        """Say how the workers of a trial could train, if there are too few GPUs for one each."""
        there, settled = _sum(machines, "GPU"), self.settled(machines, device).group
        if self.group is None or settled is None or self.group.gpus is not None:
            return ""
        return (
            suggest_gpu_options(settled.min_workers, there, device)
            if settled.gpus and settled.min_workers > there
            else ""
        )

    @property
    def option(self) -> str:
        """What asks for the most of it."""
        return "--workers" if self.group else "--gpus-per-trial" if self.gpus else "train.threads"

    def lack(self, machines: MachineResources, threads: int, trials: int = 1) -> str:
        """What so many trials need, and what there is, in words."""
        least = self.group.min_workers if self.group else 1
        needs = {
            name: trials * least * count for name, count in self.each(threads).items() if count
        }
        who = "a trial needs" if trials == 1 else f"{trials} trials side by side need"
        if self.group:
            who = who.replace(" need", f" of {_counted(least, 'worker')} need", 1)
        has = {name: _sum(machines, name) for name in ("CPU", "GPU")}
        return (
            f"{who} {_listed(needs)}; Ray has {_listed(has)} on"
            f" {_counted(len(machines), 'machine')}"
        )


def _times(machine: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How often a machine has what is needed."""
    return min(
        math.floor(machine.get(name, 0.0) / count + 1e-6) for name, count in needs.items() if count
    )


def _sum(machines: MachineResources, name: str) -> float:
    return sum(machine.get(name, 0.0) for machine in machines)


def _share(gpus: int, slots: int) -> float:
    """What each of some trials gets of the GPUs: a whole one, or an equal part of one."""
    return 1 / math.ceil(slots / gpus) if gpus else 0


def _listed(resources: Mapping[str, float]) -> str:
    return " and ".join(
        f"{count:g} {name}" + ("" if count == 1 else "s") for name, count in resources.items()
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def machines(ray: Any) -> MachineResources:
    """What each machine of Ray has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def wait_for_capacity(
    ray: Any,
    resources: TrialResources,
    threads: int,
    stop: Callable[[], int],
    trials: int = 1,
    device: str = "auto",
) -> MachineResources:
    """The machines, once so many trials fit or the time to come in is over; a refusal where not one
    fits by then.
    """
    deadline = time.monotonic() + resources.wait
    asked = resources.settled(machines(ray), device).each(threads)
    with (
        requested_resources(asked, trials * resources.workers) if resources.wait else nullcontext()
    ):
        while True:
            found = machines(ray)
            settled = resources.settled(found, device)  # machines that came may have the first GPUs
            if settled.room(found, threads) >= trials or time.monotonic() >= deadline:
                break
            if stop():
                raise KeyboardInterrupt
            time.sleep(POLL_SECONDS)
    if not settled.room(found, threads):
        lack = f"{settled.option}: {settled.lack(found, threads)}"
        ways = resources.instead(found, device)
        raise Refusal(
            f"{lack}; {ways}fewer, more machines, or --wait SECONDS for those to come expected"
        )
    return found
