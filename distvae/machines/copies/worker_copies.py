"""A worker's part in the copies of a training: it sends its own to keepers, and reads them back.

Where there are several machines, a worker has two keepers: one on another machine and one on its
own, so that the loss of any machine leaves a copy of each worker.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
import torch
from torch import Tensor

from distvae.estep.store import HeldPopulations, KeepsPopulations, parts_of
from distvae.interface import Persistent
from distvae.machines.copies.assignment import FormerCopies, assign_keepers, find_former_copies
from distvae.machines.copies.keeper import Arrays, Extent, Point, Words, WorkerState
from distvae.machines.copies.keepers import Roll, ask_all, machine_name, rows_sent_together
from distvae.machines.copies.pace import POINT_SECONDS, Pace
from distvae.machines.copies.sent_copy import SentCopy, answer, arrays
from distvae.machines.ray_api import ActorHandle
from distvae.train.documents import PositionFacts
from distvae.train.loop import Trainer
from distvae.train.team import Team
from distvae.train.weights import weights

WITH_TENSORS = 2
"""Workers that send parameters and moments: two, because a keeper may be lost with a worker."""
SETTLED = 3
"""Points after which the copies of all workers have one, so that former copies can go."""


class WorkerCopies:
    """The copies of all workers of a training, as one of the workers sees them."""

    def __init__(
        self,
        keepers: Sequence[ActorHandle],
        team: Team,
        roll: Roll | None = None,
        wanted: int = 0,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.keepers, self.team, self.say = keepers, team, say
        self.roll, self.wanted = roll, wanted
        """Where keepers are found, and how many there should be beside the second ones."""
        self.names = [str(k) for k in range(len(keepers))]
        self.former: FormerCopies | None = None
        """The copies that the workers went on from."""
        self.incarnation = ""
        self.machines: list[str] = []
        """The machine of each worker, by rank."""
        self.kept_on: list[list[str | None]] = []
        """The machines of each worker's keepers."""
        self.holders: list[list[int]] = []
        """The keepers of each worker, one or two."""
        self.trainer: Trainer | None = None
        self.pace = Pace(team, POINT_SECONDS)
        self.sent: dict[str, SentCopy] = {}
        """The copies of this worker, by the names of their keepers."""
        self.points = self.lost = 0
        self.seconds = 0.0

    def find(self) -> bool:
        """Look for the last point that all copies have; return whether there is one."""
        self._call_roll()
        found = None
        if self.team.rank == 0:
            found = find_former_copies(ask_all(self.keepers, "known", []))
        told = self.team.gather(found)[0]
        if told is None:
            return False
        incarnation, (epoch, batch), holders, with_tensors = told
        self.former = FormerCopies(incarnation, (epoch, batch), holders, with_tensors)
        return True

    def recall(self, trainer: Trainer, saved: Point | None) -> bool:
        """Restore the point that was found, if it is later than a saved one."""
        former, has_all = self.former, _has_all_state(trainer)
        if former is None or not has_all or (saved is not None and former.point <= saved):
            self.former = None
            return False
        if self.team.rank == 0:
            for k in (k for own in former.holders for k in own):
                answer(self.keepers[k].return_to.remote(former.incarnation, former.point))
        self.team.barrier()
        self._restore_weights(trainer, former)
        self._restore_populations(store_of(trainer), former)
        return True

    def _restore_weights(self, trainer: Trainer, former: FormerCopies) -> None:
        """Set parameters, moments, the position, and this worker's sums of the epoch."""
        given = self._state(former, former.with_tensors)
        tensors = {name: torch.tensor(value) for name, value in given.tensors.items()}
        trainer.restore(tensors, cast(PositionFacts, given.position))
        trainer.total = {
            name: torch.tensor(value, device=trainer.device)
            for name, value in self._own_sums(former).items()
        }

    def _own_sums(self, former: FormerCopies) -> Arrays:
        """Return the sums of this worker.

        Where the number of workers has changed, the first one takes the sums of all.
        """
        if len(former.holders) == self.team.size:
            return self._state(former, self.team.rank).sums
        sums = [self._state(former, rank).sums for rank in range(len(former.holders))]
        totals: Arrays = {name: np.sum([own[name] for own in sums], axis=0) for name in sums[0]}
        if self.team.rank > 0:
            return {name: np.zeros_like(total) for name, total in totals.items()}
        return totals

    def _state(self, former: FormerCopies, rank: int) -> WorkerState:
        """Return the state of a former worker."""
        keeper = self.keepers[former.holders[rank][0]]
        state: WorkerState = answer(keeper.state.remote(former.incarnation))
        return state

    def _restore_populations(self, store: HeldPopulations | None, former: FormerCopies) -> None:
        """Read the states of this worker's rows from the copies that hold them."""
        if store is None:
            return
        for rank, (k, *_) in enumerate(former.holders):
            theirs = store.held.lanes.held(rank, len(former.holders))
            if not store.held.overlaps(theirs):
                continue
            for part in parts_of(len(theirs), rows_sent_together(store.shape)):
                rows = theirs.part(part)
                places = part.start + np.flatnonzero(store.held.contains(rows))
                if len(places):
                    read = self.keepers[k].read.remote(former.incarnation, places)
                    own = rows[places - part.start]
                    store.put(torch.from_numpy(own), torch.tensor(answer(read)))

    def begin(self, trainer: Trainer) -> None:
        """Choose keepers for each worker. Those that hold the same worker's copy go on with it."""
        self.machines = self.team.gather(machine_name())
        self.incarnation = self.team.gather(secrets.token_hex(8))[0]
        before = self.former.holders if self.former else ()
        self._assign(before)
        self.trainer, trainer.copies = trainer, self
        self.pace = Pace(self.team, POINT_SECONDS)
        if self.store is not None:
            self.store.mirror = self._put
        if self.former and len(before) == self.team.size:
            for k in set(before[self.team.rank]) & set(self.holders[self.team.rank]):
                self.sent[self.names[k]].adopt(self.former.incarnation)

    def _assign(self, before: Sequence[Sequence[int]]) -> None:
        """Let the first worker choose keepers, given those that the workers have."""
        chosen: tuple[list[list[int]], list[list[str | None]]] = [], []
        if self.team.rank == 0:
            present = ask_all(self.keepers, "machine", None)
            holders = assign_keepers(self.machines, present, before)
            chosen = holders, [[present[k] for k in own] for own in holders]
        self.holders, self.kept_on = self.team.gather(chosen)[0]
        own = {self.names[k]: self.keepers[k] for k in self.holders[self.team.rank]}
        self.sent = {
            name: self.sent.get(name) or SentCopy(keeper, self.incarnation, self.say)
            for name, keeper in own.items()
        }

    def _call_roll(self) -> bool:
        """Learn which keepers there are; return whether they have changed."""
        if self.roll is None:
            return False
        names = self.team.gather(self.roll.names() if self.team.rank == 0 else [""])[0]
        if names == self.names:
            return False
        self.names = names
        self.keepers = [self.roll.handle(name) for name in names]
        return True

    def look_for_keepers(self) -> int:
        """Give workers new keepers where that parts them better; return how many get any.

        All workers call it together. A new keeper is filled at the next point.
        """
        before = self._names_of_holders()
        if not self._call_roll():
            return 0
        self._assign([[self.names.index(name) for name in own & {*self.names}] for own in before])
        self.points = 0
        after = self._names_of_holders()
        return sum(not now <= then for now, then in zip(after, before, strict=True))

    def _names_of_holders(self) -> list[set[str]]:
        """Return the names of each worker's keepers."""
        return [{self.names[k] for k in own} for own in self.holders]

    def _let_go(self) -> None:
        """Have copies forgotten that nobody needs any more, and end keepers that are too many."""
        used = {k for own in self.holders for k in own}
        for k, keeper in enumerate(self.keepers):
            keeper.keep_only.remote(self.incarnation if k in used else "")
        unused = [name for k, name in enumerate(self.names) if k not in used]
        for_more_workers = max(self.wanted - self.team.size, 0)
        for name in unused[: max(len(unused) - for_more_workers, 0)]:
            if self.roll is not None:
                self.roll.end(name)

    def reach(self) -> None:
        """Send the state of a point, if this is one, after what was sent before it has arrived."""
        if self.trainer is None or not self.pace.is_point():
            return
        began = time.perf_counter()
        position = self.trainer.position
        point, state = (position.epoch, position.batch), self._worker_state(self.trainer)
        for copy in self.sent.values():
            self.lost += copy.is_lost()
            if not copy.filled:
                copy.fill(self.extent(), self._parts())
            copy.reach(point, state)
        self.points += 1
        if self.points == SETTLED and self.team.rank == 0:
            self._let_go()
        self.seconds += time.perf_counter() - began

    def _worker_state(self, trainer: Trainer) -> WorkerState:
        """Return what this worker needs to go on, beside the states of its rows."""
        tensors: dict[str, Tensor] = {}
        if self.team.rank < WITH_TENSORS:
            tensors = weights(trainer.model, trainer.estep) | trainer.adam.state()
        return WorkerState(asdict(trainer.position), arrays(trainer.total), arrays(tensors))

    def _parts(self) -> Iterator[tuple[slice, Words]]:
        """Yield the states of all rows, in parts."""
        if self.store is not None:
            for part in parts_of(self.store.shape[0], rows_sent_together(self.store.shape)):
                yield part, self.store.read(part).cpu().numpy()

    def extent(self) -> Extent:
        """Return the size of this worker's copy."""
        rank, size = self.team.rank, self.team.size
        if self.store is None:
            return Extent(rank, size, 0, 0, 0)
        return Extent(rank, size, *self.store.shape)

    def _put(self, rows: Tensor, words: Tensor) -> None:
        """Keep the states of some rows that have changed, to be sent with the next point."""
        if self.store is None or not any(copy.filled for copy in self.sent.values()):
            return
        began = time.perf_counter()
        places = self.store.held.index(rows).cpu().numpy()
        values = words.to("cpu", copy=True).numpy()
        for copy in self.sent.values():
            copy.put(places, values)
        self.seconds += time.perf_counter() - began

    @property
    def store(self) -> HeldPopulations | None:
        """Return the populations of this worker, if it has any."""
        return store_of(self.trainer) if self.trainer else None

    def timings(self) -> dict[str, float]:
        """Return this worker's seconds since the last call. Of all workers count the keepers that
        were lost, and the copies that could not be made, as on a full disk.
        """
        seconds, self.seconds = self.seconds, 0.0
        absent = sum(not copy.filled for copy in self.sent.values()) if self.points else 0
        lost, absent = map(sum, zip(*self.team.gather((self.lost, absent)), strict=True))
        return {"copy_seconds": seconds, "lost_keepers": lost, "absent_copies": absent}


def _has_all_state(trainer: Trainer) -> bool:
    """Return whether copies have all state of a training, unlike that of other E-steps' files."""
    return store_of(trainer) is not None or not isinstance(trainer.estep, Persistent)


def store_of(trainer: Trainer) -> HeldPopulations | None:
    """Return the populations of a worker, if its E-step keeps any."""
    return trainer.estep.populations() if isinstance(trainer.estep, KeepsPopulations) else None
