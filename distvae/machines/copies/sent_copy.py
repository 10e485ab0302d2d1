"""A worker's copy as the worker sends it to one keeper: first everything, then what changes.

Nothing that is sent is waited for before the next point. A copy that was lost is filled anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from distvae.estep.store import parts_of
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
from distvae.machines.copies.keepers import SENT_BYTES, rows_sent_together
from distvae.machines.ray_api import ActorHandle, ObjectRef, RemoteMethod

MOST_SENT = 4
"""Messages with some states each that may be on their way."""
SILENT_SECONDS = 10.0
"""Seconds in which a keeper has to take a message; then its process is replaced."""


class SilentKeeper(LostCopy):
    """A keeper's process is there, but does not answer."""


class SentCopy:
    """The copy of this worker in one keeper."""

    def __init__(
        self,
        keeper: ActorHandle,
        incarnation: str,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.keeper, self.incarnation, self.say = keeper, incarnation, say
        self.filled = False
        self.starting: ObjectRef | None = None
        """The first answer of a process that replaces a silent one."""
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
        """Send the states of all rows, and wait until they have arrived.

        Send none while the keeper's process is being replaced.
        """
        self.changed = []
        if not self._has_started():
            return
        self._send(self.keeper.begin, extent)
        self.filled = self._has_arrived()
        for part, words in parts:
            if not self.filled:
                return
            self._send_and_wait_for_some(part, words)
        self.filled = self.filled and self._has_arrived()

    def reach(self, point: Point, state: WorkerState) -> None:
        """Send the state of a point and what has changed, if the keeper has the other rows."""
        changed, self.changed = self.changed, []
        if sum(each.words.nbytes for each in changed) > SENT_BYTES:
            self._send_in_parts(changed)
            changed = []
        if self.filled:
            self._send(self.keeper.update, Update(point, state, changed))

    def _send_in_parts(self, changed: Sequence[RowStates]) -> None:
        """Send states before their point, in messages of which Ray's object store holds several."""
        for places, words in changed:
            assert not isinstance(places, slice)
            for part in parts_of(len(words), rows_sent_together(words.shape)):
                if self.filled:
                    self._send_and_wait_for_some(places[part], words[part])

    def _send_and_wait_for_some(self, places: Places, words: Words) -> None:
        """Send states; wait for the answers if many messages are on their way."""
        self._send(self.keeper.put, places, words)
        if len(self.pending) >= MOST_SENT:
            self.filled = self._has_arrived()

    def _send(self, method: RemoteMethod, *arguments: object) -> None:
        """Call a method of the keeper; its answer is looked at later."""
        self.pending.append(method.remote(self.incarnation, *arguments))

    def _has_arrived(self) -> bool:
        """Wait for the answers to all that was sent; return whether the keeper still has it."""
        pending, self.pending = self.pending, []
        try:
            for ref in pending:
                answer(ref)
        except SilentKeeper:
            self._replace()
            return False
        except LostCopy:
            return False
        return True

    def _replace(self) -> None:
        """Have Ray end the keeper's process and start another one in its place."""
        import ray

        self.say(f"a keeper has not answered for {SILENT_SECONDS:.0f} s; it is replaced")
        ray.kill(self.keeper, no_restart=False)
        self.starting = self.keeper.known.remote()

    def _has_started(self) -> bool:
        """Return whether the keeper's process, if it was replaced, answers."""
        import ray
        from ray.exceptions import RayError

        if self.starting is None:
            return True
        if not ray.wait([self.starting], timeout=0)[0]:
            return False
        try:
            ray.get(self.starting)
        except RayError:
            self.starting = self.keeper.known.remote()
            return False
        self.starting = None
        return True


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Return tensors as arrays of NumPy."""
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def answer(ref: ObjectRef) -> Any:
    """Return a keeper's answer; raise LostCopy if it is gone, with or without its process."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    try:
        return ray.get(ref, timeout=SILENT_SECONDS)
    except RayTaskError as error:
        raise error.cause from error
    except GetTimeoutError as error:
        raise SilentKeeper(f"a keeper has not answered for {SILENT_SECONDS:.0f} s") from error
    except RayError as error:
        raise LostCopy(f"a keeper is out of reach: {error}") from error
