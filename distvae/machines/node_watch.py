"""Which machines Ray has, and whether the workers of a training still have room on them, in
words.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

EVERY = 2.0
"""Seconds between two looks."""


class Roll:
    """The machines, called now and then: tells of those that are lost or have come, and of what is
    waited for.

    They are called by a thread: Ray does not answer for a minute when its head has just been lost.
    """

    def __init__(self, machines: Callable[[], Mapping[str, str]], lack: Callable[[], str]) -> None:
        self.machines, self.lack = machines, lack
        self.known, self.missing = dict(machines()), ""
        self.told: deque[str] = deque()
        self.over = threading.Event()

    def __enter__(self) -> "Roll":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def _watch(self) -> None:
        while not self.over.wait(EVERY):
            with suppress(
                Exception
            ):  # Ray's head does not answer; who waits for the workers hears of that
                self.told.extend(self.look())

    def look(self) -> list[str]:
        """Say what has changed since the last look."""
        now, missing = dict(self.machines()), self.lack()
        changed = [f"machine {self.known[name]} is lost" for name in self.known if name not in now]
        changed += [f"machine {now[name]} has come" for name in now if name not in self.known]
        if missing and missing != self.missing:
            changed.append(f"{missing}; training goes on when there is room for them")
        self.known, self.missing = now, missing
        return changed

    def news(self) -> Iterator[str]:
        """Tell what was seen."""
        while self.told:
            yield self.told.popleft()
