"""Who trains together, and the wait until there is room for them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from distvae.refusal import Refusal
from distvae.train.loop import Interrupted

POLL = 0.3  # seconds between two looks at what there is


@dataclass(frozen=True)
class Group:
    """Who trains."""

    least: int
    most: int
    gpus: float = 0.0
    """Of each worker."""
    address: str | None = None
    """Of a Ray that runs; without one it is started here."""
    wait: float = 0.0
    """Seconds to wait for machines that are still to come."""

    @classmethod
    def parse(cls, text: str, gpus: float = 0.0, address: str | None = None, wait: float = 0.0) -> "Group":
        """`N`, or `LEAST:MOST` for as many as there are."""
        parts = text.split(":")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise Refusal(f"--workers: '{text}'; a number such as 4, or a range such as 1:4, expected")
        least, most = int(parts[0]), int(parts[-1])
        if least > most:
            raise Refusal(f"--workers: '{text}' falls; a range such as 1:4 expected")
        return cls(least, most, gpus, address, wait)


def wait_for_workers(ray: Any, group: Group, threads: int, stop: Callable[[], object]) -> Iterator[str]:
    """Refuse more workers than Ray has room for, at once or after the time that they have to come in."""
    from distvae.nodes import called

    deadline = time.monotonic() + group.wait
    if group.wait and (lack := _lack(ray.cluster_resources(), group, threads)):
        yield f"{lack}; waiting up to {group.wait:.0f} s for more"
    with called({"CPU": threads, "GPU": group.gpus}, group.most) if group.wait else nullcontext():
        while lack := _lack(ray.cluster_resources(), group, threads):
            if stop():
                raise Interrupted
            if time.monotonic() >= deadline:
                raise Refusal(f"{lack}; fewer workers, more machines, or --wait SECONDS for those to come expected")
            time.sleep(POLL)


def missing(ray: Any, group: Group, threads: int) -> str:
    """Say what the fewest workers need that Ray does not have now."""
    return _lack(ray.cluster_resources(), group, threads)


def _lack(there: Mapping[str, float], group: Group, threads: int) -> str:
    """What the fewest workers need that is not there."""
    for name, each in {"CPU": threads, "GPU": group.gpus}.items():
        if group.least * each > there.get(name, 0):
            needed = f"{group.least} workers need {group.least * each:g} {name}s"
            return f"--workers: {needed}, and Ray has {there.get(name, 0):g}"
    return ""
