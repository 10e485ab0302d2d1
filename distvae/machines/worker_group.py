"""Who trains together, and the wait until there is room for them."""

import math
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from distvae.config import Train
from distvae.config.schema import check
from distvae.config.values import NonNegative
from distvae.files.refusal import Refusal
from distvae.train.loop import Interrupted

POLL = 0.3  # seconds between two looks at what there is
SMALLEST = 1e-4  # part of a GPU that Ray can count


@dataclass(frozen=True)
class WorkerGroup:
    """Who trains."""

    min_workers: int
    max_workers: int
    gpus: float | None = 0.0
    """Of each worker; None: one, if Ray has any."""
    address: str | None = None
    """Of a Ray that runs; without one it is started here."""
    wait: float = 0.0
    """Seconds to wait for machines that are still to come."""

    @classmethod
    def parse(
        cls, text: str, gpus: float | None = None, address: str | None = None, wait: float = 0.0
    ) -> "WorkerGroup":
        """`N`, or `LEAST:MOST` for as many as there are."""
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
    """Return the seconds of --wait, if they are a number."""
    return float(check("--wait", NonNegative, seconds))


def refuse_gpu_share(option: str, gpus: float | None) -> None:
    """Refuse what Ray cannot give a process of its GPUs."""
    if gpus is None:
        return
    if gpus and not (SMALLEST <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0)):
        raise Refusal(
            f"{option}: {gpus:g}; a part of one, such as 0.25, or a whole number expected"
        )


def refuse_hidden_gpus(option: str, gpus: float | None, device: str) -> None:
    """Refuse to train on GPUs that are to be hidden."""
    if gpus == 0 and device == "cuda":
        raise Refusal(
            f"{option}: 0 hides the GPUs, but train.device is 'cuda'; 1, or train.device=cpu,"
            " expected"
        )


def gpus_per_process(asked: float | None, device: str, there: float) -> float:
    """Return the GPUs that each process asks Ray for, where Ray has so many.

    What was asked for; else one, if there are any and `train.device` lets the process use it.
    """
    if asked is not None:
        return asked
    return 1.0 if device == "cuda" or (device == "auto" and there) else 0.0


def suggest_gpu_options(workers: int, gpus: float, device: str) -> str:
    """Say how so many workers could train that would each have a GPU of their own, were there as
    many.
    """
    share = math.floor(100 / math.ceil(workers / gpus)) / 100 if gpus else 0.0
    sharing = f"--gpus-per-worker {share:g} to share them, " if share else ""
    without = "train.device=cpu" if device == "cuda" else "--gpus-per-worker 0"
    return f"{sharing}{without} to train on the CPU, "


def wait_for_workers(
    ray: Any, group: WorkerGroup, config: Train, stop: Callable[[], object]
) -> Generator[str, None, WorkerGroup]:
    """Return the group with its GPUs, once Ray has room for it; refuse it if the time to come in is
    over by then.
    """
    from distvae.machines.autoscaler import requested_resources

    deadline = time.monotonic() + group.wait
    threads = config.threads or 1
    settled = _settled(ray, group, config.device)
    if group.wait and (lack := _lack(ray.cluster_resources(), settled, threads)):
        yield f"{lack}; waiting up to {group.wait:.0f} s for more"
    needs = {"CPU": threads, "GPU": settled.gpus or 0.0}
    with requested_resources(needs, group.max_workers) if group.wait else nullcontext():
        while lack := _lack(ray.cluster_resources(), settled, threads):
            if stop():
                raise Interrupted
            if time.monotonic() >= deadline:
                few = group.gpus is None and "GPUs" in lack
                ways = (
                    suggest_gpu_options(
                        group.min_workers, ray.cluster_resources().get("GPU", 0.0), config.device
                    )
                    if few
                    else ""
                )
                raise Refusal(
                    f"{lack}; {ways}fewer workers, more machines, or --wait SECONDS for those to"
                    " come expected"
                )
            time.sleep(POLL)
            settled = _settled(
                ray, group, config.device
            )  # machines that came may have the first GPUs
    return settled


def _settled(ray: Any, group: WorkerGroup, device: str) -> WorkerGroup:
    """Return the group with the GPUs of each worker, by what Ray has now."""
    return replace(
        group, gpus=gpus_per_process(group.gpus, device, ray.cluster_resources().get("GPU", 0.0))
    )


def missing(ray: Any, group: WorkerGroup, threads: int) -> str:
    """Say what the fewest workers need that Ray does not have now."""
    return _lack(ray.cluster_resources(), group, threads)


def _lack(there: Mapping[str, float], group: WorkerGroup, threads: int) -> str:
    """Say what the fewest workers need that is not there."""
    for name, each in {"CPU": threads, "GPU": group.gpus or 0.0}.items():
        if group.min_workers * each > there.get(name, 0) + 1e-6:
            needed = f"{group.min_workers} workers need {group.min_workers * each:g} {name}s"
            return f"--workers: {needed}, and Ray has {there.get(name, 0):g}"
    return ""
