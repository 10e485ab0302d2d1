"""A watch over the machines of a cluster and the resources of a training."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

WATCH_INTERVAL = 2.0
"""Seconds between two looks."""


class NodeWatch:
    """A watch that reports machines that are lost or have joined, and missing resources.

    It runs in a thread, because Ray does not answer for a minute after its head was lost.
    """

    def __init__(
        self, list_nodes: Callable[[], Mapping[str, str]], describe_shortage: Callable[[], str]
    ) -> None:
        self.list_nodes, self.describe_shortage = list_nodes, describe_shortage
        self.nodes, self.shortage = dict(list_nodes()), ""
        self.unread: deque[str] = deque()
        self.closed = threading.Event()

    def __enter__(self) -> "NodeWatch":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def _watch(self) -> None:
        while not self.closed.wait(WATCH_INTERVAL):
            # If Ray's head does not answer, the thread that waits for the workers notices.
            with suppress(Exception):
                self.unread.extend(self.describe_changes())

    def describe_changes(self) -> list[str]:
        """Return a sentence for each change since the last call."""
        nodes, shortage = dict(self.list_nodes()), self.describe_shortage()
        changes = [
            f"machine {address} is lost"
            for name, address in self.nodes.items()
            if name not in nodes
        ]
        changes += [
            f"machine {address} has joined"
            for name, address in nodes.items()
            if name not in self.nodes
        ]
        if shortage and shortage != self.shortage:
            changes.append(f"{shortage}; training continues when they fit")
        self.nodes, self.shortage = nodes, shortage
        return changes

    def take_messages(self) -> Iterator[str]:
        """Yield the sentences that nobody has read."""
        while self.unread:
            yield self.unread.popleft()
