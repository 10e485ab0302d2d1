"""The workers that train together, and the wait until Ray has room for them."""

import math
import re
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace

from distvae.config import Train
from distvae.config.schema import check_value
from distvae.config.values import NonNegative
from distvae.files.refusal import Refusal
from distvae.machines.cluster import (
    MachineResources,
    amounts,
    count_fitting,
    machine_resources,
    requested_resources,
    total,
)
from distvae.machines.ray_api import RayApi
from distvae.numerics.numbers import counted
from distvae.train.stopping import Interrupted

POLL_SECONDS = 0.3
"""Seconds between two looks at the resources of Ray."""
SMALLEST_SHARE = 1e-4
"""The smallest part of a GPU that Ray can count."""


@dataclass(frozen=True)
class WorkerGroup:
    """The number of workers that train together, and the Ray cluster that provides them."""

    min_workers: int
    max_workers: int
    gpus: float | None = 0.0
    """GPUs of each worker; None: one, if Ray has any."""
    address: str | None = None
    """Address of a running Ray; None: start one on this machine."""
    wait: float = 0.0
    """Seconds to wait for machines that have not joined."""

    @classmethod
    def parse(
        cls, text: str, gpus: float | None = None, address: str | None = None, wait: float = 0.0
    ) -> "WorkerGroup":
        """Return the group for `--workers N`, or for `--workers MIN:MAX`."""
        parts = text.split(":")
        if len(parts) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,5}", part) for part in parts):
            raise Refusal(
                f"--workers: '{text}'; a number such as 4, or a range such as 1:4, expected"
            )
        min_workers, max_workers = int(parts[0]), int(parts[-1])
        if min_workers > max_workers:
            raise Refusal(f"--workers: '{text}' falls; a range such as 1:4 expected")
        refuse_gpu_share("--gpus-per-worker", gpus)
        return cls(min_workers, max_workers, gpus, address, checked_wait(wait))


def checked_wait(seconds: float) -> float:
    """Return the seconds of --wait, or raise a Refusal if they are no number of seconds."""
    return float(check_value("--wait", NonNegative, seconds))


def refuse_gpu_share(option: str, gpus: float | None) -> None:
    """Refuse a number of GPUs that Ray cannot give a process."""
    if not gpus:
        return
    is_share = SMALLEST_SHARE <= gpus <= 1
    is_whole = gpus > 1 and gpus % 1 == 0
    if not is_share and not is_whole:
        raise Refusal(
            f"{option}: {gpus:g}; a part of one, such as 0.25, or a whole number expected"
        )


def refuse_hidden_gpus(option: str, gpus: float | None, device: str) -> None:
    """Refuse to train on GPUs that an option hides."""
    if gpus == 0 and device == "cuda":
        raise Refusal(
            f"{option}: 0 hides the GPUs, but train.device is 'cuda'; 1, or train.device=cpu,"
            " expected"
        )


def gpus_per_process(requested: float | None, device: str, available: float) -> float:
    """Return the GPUs that each process requests from Ray.

    Without a request that is one, if Ray has any and `train.device` lets the process use it.
    """
    if requested is not None:
        return requested
    uses_gpu = device == "cuda" or (device == "auto" and available > 0)
    return 1.0 if uses_gpu else 0.0


def suggest_gpu_options(workers: int, gpus: float, device: str) -> str:
    """Return the options with which workers could train on too few GPUs."""
    suggestions = []
    share = math.floor(100 / math.ceil(workers / gpus)) / 100 if gpus else 0.0
    if share:
        suggestions.append(f"--gpus-per-worker {share:g} to share them, ")
    on_cpu = "train.device=cpu" if device == "cuda" else "--gpus-per-worker 0"
    suggestions.append(f"{on_cpu} to train on the CPU, ")
    return "".join(suggestions)


def wait_for_workers(
    ray: RayApi, group: WorkerGroup, config: Train, stop: Callable[[], object]
) -> Generator[str, None, WorkerGroup]:
    """Wait until Ray has room for a group; return the group with the GPUs of each worker.

    Raise a Refusal if there is no room within `group.wait` seconds.
    """
    deadline = time.monotonic() + group.wait
    threads = config.threads or 1
    settled = _with_gpus(ray, group, config.device)
    shortage = describe_shortage(machine_resources(ray), settled, threads)
    if group.wait and shortage:
        yield f"{shortage}; waiting up to {group.wait:.0f} s for more"
    bundle = {"CPU": threads, "GPU": settled.gpus or 0.0}
    with requested_resources(bundle, group.max_workers) if group.wait else nullcontext():
        while shortage:
            if stop():
                raise Interrupted
            if time.monotonic() >= deadline:
                raise Refusal(
                    f"{shortage}; {_gpu_suggestions(ray, group, config.device, shortage)}fewer"
                    " workers, more machines, or --wait SECONDS for those to come expected"
                )
            time.sleep(POLL_SECONDS)
            # New machines may have the first GPUs.
            settled = _with_gpus(ray, group, config.device)
            shortage = describe_shortage(machine_resources(ray), settled, threads)
    return settled


def _with_gpus(ray: RayApi, group: WorkerGroup, device: str) -> WorkerGroup:
    """Return the group with the GPUs of each worker, by the present resources."""
    available = total(machine_resources(ray), "GPU")
    return replace(group, gpus=gpus_per_process(group.gpus, device, available))


def _gpu_suggestions(ray: RayApi, group: WorkerGroup, device: str, shortage: str) -> str:
    """Return options for too few GPUs, where their number was not requested."""
    available = total(machine_resources(ray), "GPU")
    if group.gpus is not None or "GPU" not in shortage or group.min_workers <= available:
        return ""
    return suggest_gpu_options(group.min_workers, available, device)


def describe_shortage(machines: MachineResources, group: WorkerGroup, threads: int) -> str:
    """Describe what the fewest workers of a group need that is not available; '' if they fit."""
    per_worker = {"CPU": threads, "GPU": group.gpus or 0.0}
    for name, count in per_worker.items():
        needed = group.min_workers * count
        found = total(machines, name)
        if needed > found + 1e-6:
            return (
                f"--workers: {group.min_workers} workers need {needed:g} {name}s, and Ray has"
                f" {found:g}"
            )
    fitting = count_fitting(machines, per_worker)
    if fitting < group.min_workers:
        each = amounts({name: count for name, count in per_worker.items() if count})
        return (
            f"--workers: {counted(group.min_workers, 'worker')} with {each} each, and Ray has"
            f" machines for {fitting}"
        )
    return ""
