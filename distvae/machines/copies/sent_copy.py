"""A worker's copy as the worker sends it to one keeper: first everything, then what changes.

Nothing that is sent is waited for before the next point. A copy that was lost is filled anew.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from distvae.machines.copies.keeper import (
    Arrays,
    Extent,
    LostCopy,
    Places,
    Point,
    RowStates,
    Update,
    Words,
    WorkerState,
)
from distvae.machines.ray_api import ActorHandle, ObjectRef, RemoteMethod

MOST_SENT = 4
"""Messages with states that may be on their way when a copy is filled."""


class SentCopy:
    """The copy of this worker in one keeper."""

    def __init__(self, keeper: ActorHandle, incarnation: str) -> None:
        self.keeper, self.incarnation = keeper, incarnation
        self.filled = False
        self.pending: list[ObjectRef] = []
        """Answers to what was sent since the last point."""
        self.changed: list[RowStates] = []
        """States that have changed and are not sent yet."""

    def adopt(self, former: str) -> None:
        """Go on with a copy that the keeper has from a former incarnation."""
        self._send(self.keeper.adopt, former)
        self.filled = True

    def put(self, places: Places, words: Words) -> None:
        """Send the states of some rows with the next point, if the keeper has the others.

        The arrays must not change until then.
        """
        if self.filled:
            self.changed.append(RowStates(places, words))

    def is_lost(self) -> bool:
        """Wait for the answers to what was sent; return whether the copy was there and is not."""
        if self.filled:
            self.filled = self._has_arrived()
            return not self.filled
        return False

    def fill(self, extent: Extent, parts: Iterable[tuple[slice, Words]]) -> None:
        """Send the states of all rows, and wait until they have arrived."""
        self.changed = []
        self._send(self.keeper.begin, extent)
        self.filled = self._has_arrived()
        for part, words in parts:
            if not self.filled:
                return
            self._send(self.keeper.put, part, words)
            if len(self.pending) >= MOST_SENT:
                self.filled = self._has_arrived()
        self.filled = self.filled and self._has_arrived()

    def reach(self, point: Point, state: WorkerState) -> None:
        """Send the state of a point and what has changed, if the keeper has the other rows."""
        changed, self.changed = self.changed, []
        if self.filled:
            self._send(self.keeper.update, Update(point, state, changed))

    def _send(self, method: RemoteMethod, *arguments: object) -> None:
        """Call a method of the keeper; its answer is looked at later."""
        self.pending.append(method.remote(self.incarnation, *arguments))

    def _has_arrived(self) -> bool:
        """Wait for the answers to all that was sent; return whether the keeper still has it."""
        pending, self.pending = self.pending, []
        try:
            for ref in pending:
                answer(ref)
        except LostCopy:
            return False
        return True


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Return tensors as arrays of NumPy."""
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def answer(ref: ObjectRef) -> Any:
    """Return a keeper's answer; raise LostCopy if it is gone, with or without its process."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise LostCopy(f"a keeper is out of reach: {error}") from error
