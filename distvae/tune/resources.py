"""Workers and GPUs for each trial, and how many trials fit on the machines of a Ray cluster."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from distvae.files.refusal import Refusal
from distvae.machines.cluster import (
    POLL_SECONDS,
    MachineResources,
    WorkerGroup,
    amounts,
    checked_wait,
    count_fitting,
    gpus_per_process,
    machine_resources,
    refuse_gpu_share,
    refuse_hidden_gpus,
    requested_resources,
    suggest_gpu_options,
    total,
)
from distvae.machines.session import RayApi
from distvae.numerics.metrics import counted

TUNE_MINIMUM = {"memory": 1.0}
"""The request of a trial's process whose workers train: Tune does not accept an empty request."""


@dataclass(frozen=True)
class TrialResources:
    """Workers and GPUs for each trial, and the Ray cluster that provides them."""

    group: WorkerGroup | None = None
    """The workers of a trial; without them its own process trains."""
    gpus: float | None = None
    """GPUs of a trial without workers; None for an equal share of all GPUs in the cluster."""
    address: str | None = None
    """The address of a running Ray; None to start Ray on this machine."""
    wait: float = 0.0
    """Seconds to wait for machines that have not joined yet."""

    @classmethod
    def parse(
        cls,
        workers: str,
        gpus_per_worker: float | None,
        gpus_per_trial: float | None,
        address: str | None,
        wait: float,
    ) -> "TrialResources":
        """Read the options of a command line."""
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
    def max_workers(self) -> int:
        """The largest number of training processes of a trial."""
        return self.group.max_workers if self.group else 1

    @property
    def min_workers(self) -> int:
        """The smallest number of training processes of a trial."""
        return self.group.min_workers if self.group else 1

    def refuse_hidden_gpus(self, device: str) -> None:
        """Refuse to train on GPUs that are to be hidden."""
        if self.group:
            refuse_hidden_gpus("--gpus-per-worker", self.group.gpus, device)
        refuse_hidden_gpus("--gpus-per-trial", self.gpus, device)

    def with_gpus(self, machines: MachineResources, device: str) -> "TrialResources":
        """Return a copy that states the GPUs of each worker or trial.

        They follow from `train.device` and from the GPUs of the machines. Trials without workers
        that share the GPUs equally stay as they are.
        """
        available = total(machines, "GPU")
        if self.group:
            gpus = gpus_per_process(self.group.gpus, device, available)
            return replace(self, group=replace(self.group, gpus=gpus))
        if self.gpus is None and device != "cpu" and available:
            return self
        return replace(self, gpus=gpus_per_process(self.gpus, device, available))

    def per_process(self, threads: int) -> dict[str, float]:
        """Return the resources that each training process takes."""
        gpus = self.group.gpus if self.group else self.gpus
        return {"CPU": threads, "GPU": gpus or 0.0}

    def max_concurrent(self, machines: MachineResources, threads: int) -> int:
        """Return how many trials fit side by side. A trial's workers may be on several machines."""
        slots = count_fitting(machines, self.per_process(threads))
        return max(slots // self.max_workers, 1) if slots >= self.min_workers else 0

    def tune_request(
        self, machines: MachineResources, threads: int, concurrent: int
    ) -> dict[str, float]:
        """Return the resources that the process of a trial requests from Ray Tune.

        Concurrent trials share GPUs equally: each has a whole GPU or a part. Ray counts in
        ten-thousandths, so a part is rounded down to them.
        """
        if self.group:
            return TUNE_MINIMUM
        gpus, available = self.gpus, int(total(machines, "GPU"))
        if gpus is None:
            gpus = 10_000 // math.ceil(concurrent / available) / 10_000 if available else 0
        return {"cpu": threads, "gpu": gpus}

    def describe_shortage(self, machines: MachineResources, threads: int, trials: int = 1) -> str:
        """Say what some trials need, and what the cluster has."""
        workers = self.min_workers if trials == 1 else self.max_workers
        needs = {
            name: trials * workers * count
            for name, count in self.per_process(threads).items()
            if count
        }
        has = {name: total(machines, name) for name in ("CPU", "GPU")}
        of_workers = f" of {counted(workers, 'worker')}" if self.group else ""
        if trials == 1:
            subject = f"a trial{of_workers} needs"
        else:
            subject = f"{trials} trials side by side{of_workers} need"
        return (
            f"{subject} {amounts(needs)}; Ray has {amounts(has)} on"
            f" {counted(len(machines), 'machine')}"
        )

    def refuse_shortage(self, machines: MachineResources, threads: int, device: str) -> None:
        """Raise `Refusal` because not even one trial fits, with the ways out."""
        settled, available = self.with_gpus(machines, device), total(machines, "GPU")
        option = "--gpus-per-trial" if settled.gpus else "train.threads"
        sharing = ""
        if self.group and settled.group:
            option = "--workers"
            too_few = settled.group.gpus and self.min_workers > available
            if too_few and self.group.gpus is None:
                sharing = suggest_gpu_options(self.min_workers, available, device)
        raise Refusal(
            f"{option}: {settled.describe_shortage(machines, threads)}; {sharing}fewer, more"
            " machines, or --wait SECONDS for those to come expected"
        )


def wait_for_capacity(
    ray: RayApi,
    resources: TrialResources,
    threads: int,
    stop: Callable[[], int],
    trials: int = 1,
    device: str = "auto",
) -> MachineResources:
    """Return the machines as soon as all trials fit, or after `resources.wait` seconds.

    Raise `Refusal` if not even one trial fits by then.
    """
    deadline = time.monotonic() + resources.wait
    needs = resources.with_gpus(machine_resources(ray), device).per_process(threads)
    processes = trials * resources.max_workers
    with requested_resources(needs, processes) if resources.wait else nullcontext():
        while True:
            machines = machine_resources(ray)
            settled = resources.with_gpus(machines, device)  # the first GPUs may just have joined
            fitting = settled.max_concurrent(machines, threads)
            if fitting >= trials or time.monotonic() >= deadline:
                break
            if stop():
                raise KeyboardInterrupt
            time.sleep(POLL_SECONDS)
    if not fitting:
        resources.refuse_shortage(machines, threads, device)
    return machines
