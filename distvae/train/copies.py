"""Copies of a training outside its workers, from which it goes on when some of them are lost."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from distvae.train.loop import Trainer


class Copies(Protocol):
    """Copies of the states of all workers. All workers make the same calls in the same order."""

    def recall(self, trainer: "Trainer", saved: tuple[int, int] | None) -> bool:
        """Restore the last point that was copied, if it is later than a saved epoch and batch.

        Return whether it was.
        """

    def begin(self, trainer: "Trainer") -> None:
        """Copy everything that a trainer holds, and from now on what changes."""

    def reach(self, trainer: "Trainer") -> None:
        """Copy the state of a trainer between two blocks, when all workers agree on parameters."""

    def timings(self) -> dict[str, float]:
        """Return figures for the record of an epoch, by name. All workers call it together."""
