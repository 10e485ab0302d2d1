"""Which machines Ray has, and whether the workers of a training still have room on them, in words."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

EVERY = 2.0
"""Seconds between two looks."""


class Roll:
    """The machines, called now and then: tells of those that are lost or have come, and of what is waited for."""

    def __init__(self, machines: Callable[[], Mapping[str, str]], lack: Callable[[], str]) -> None:
        self.machines, self.lack = machines, lack
        self.known, self.missing, self.due = dict(machines()), "", time.monotonic() + EVERY

    def news(self) -> Iterator[str]:
        """Tell what has changed, if it is time to look."""
        if time.monotonic() < self.due:
            return
        with suppress(Exception):  # Ray's head does not answer; who waits for the workers hears of that
            now, missing = dict(self.machines()), self.lack()
            yield from (f"machine {self.known[name]} is lost" for name in self.known if name not in now)
            yield from (f"machine {now[name]} has come" for name in now if name not in self.known)
            if missing and missing != self.missing:
                yield f"{missing}; training goes on when there is room for them"
            self.known, self.missing = now, missing
        self.due = time.monotonic() + EVERY


def alive(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Return the addresses of the machines that Ray tells of as alive, by their ids."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
