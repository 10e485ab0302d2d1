"""Copies of a training outside its workers, from which it goes on when some of them are lost."""

from typing import Protocol


class Copies(Protocol):
    """Copies of the states of all workers. All workers make the same calls in the same order."""

    def reach(self) -> None:
        """Copy the state between two blocks, when all workers agree on parameters."""

    def timings(self) -> dict[str, float]:
        """Return figures for the record of an epoch, by name. All workers call it together."""
