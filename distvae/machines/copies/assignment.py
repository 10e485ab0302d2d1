"""Assignment of copies to keepers, and the choice of copies that a training goes on from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distvae.machines.copies.keeper import KnownCopy, Point


class FormerCopies(NamedTuple):
    """Copies from which all workers can go on. It travels as JSON."""

    incarnation: str
    point: Point
    holders: Sequence[Sequence[int]]
    """The keepers with the copy of each former worker, by rank."""
    with_tensors: int
    """The former worker whose copy has the parameters."""


class Slot(NamedTuple):
    """A place for a copy of a worker: on its own machine, or on another one."""

    rank: int
    beside: bool


class Matching:
    """Keepers for slots; a keeper has one copy at most.

    None is the machine of a keeper that is gone.
    """

    def __init__(self, workers: Sequence[str], keepers: Sequence[str | None]) -> None:
        self.workers, self.keepers = workers, keepers
        self.slot_of: dict[int, Slot] = {}

    def fits(self, slot: Slot, k: int) -> bool:
        """Return whether a keeper is where a slot wants it."""
        own = self.workers[slot.rank]
        return self.keepers[k] == own if slot.beside else self.keepers[k] not in (None, own)

    def fill(self, slots: Sequence[Slot], before: Sequence[Sequence[int]]) -> None:
        """Give as many slots as possible a keeper, first those that the workers had before."""
        for slot in slots:
            known = [k for k in before[slot.rank] if k not in self.slot_of and self.fits(slot, k)]
            self.slot_of |= dict.fromkeys(known[:1], slot)
        for slot in slots:
            if slot not in self.slot_of.values():
                self._find(slot, set())

    def keepers_of_workers(self) -> list[list[int]]:
        """Return the keepers of each worker, first the one on another machine."""
        keeper_of = {slot: k for k, slot in self.slot_of.items()}
        return [
            [keeper_of[slot] for slot in (Slot(rank, False), Slot(rank, True)) if slot in keeper_of]
            for rank in range(len(self.workers))
        ]

    def _find(self, slot: Slot, tried: set[int]) -> bool:
        """Give a slot a keeper; others may have to take another one for that."""
        for k in range(len(self.keepers)):
            if self.fits(slot, k) and k not in tried:
                tried.add(k)
                if k not in self.slot_of or self._find(self.slot_of[k], tried):
                    self.slot_of[k] = slot
                    return True
        return False


def assign_keepers(
    workers: Sequence[str],
    keepers: Sequence[str | None],
    before: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Return the keepers of each worker, given the machines of both; None is a keeper that is gone.

    As many workers as possible have one on another machine, the others one on their own, and then
    as many as possible a second one on their own. A keeper has one copy, so no two workers share
    one, and workers may be left without. They stay with the keepers that they had before, where
    that allows it.
    """
    before = before if len(before) == len(workers) else [()] * len(workers)
    matching, ranks = Matching(workers, keepers), range(len(workers))
    matching.fill([Slot(rank, False) for rank in ranks], before)
    apart = {slot.rank for slot in matching.slot_of.values()}
    matching.fill([Slot(rank, True) for rank in ranks if rank not in apart], before)
    matching.fill([Slot(rank, True) for rank in ranks if rank in apart], before)
    chosen = matching.keepers_of_workers()
    gone = [k for k in range(len(keepers)) if k not in matching.slot_of and keepers[k] is None]
    for rank, own in enumerate(chosen):
        if gone and not own:
            own.append(min(gone, key=lambda k: k not in before[rank]))
            gone.remove(own[0])
    return chosen


def is_apart(worker: str, keepers: Sequence[str | None], own: Sequence[int]) -> bool:
    """Return whether a worker has its first keeper on another machine than its own."""
    return bool(own) and keepers[own[0]] not in (None, worker)


def count_together(
    workers: Sequence[str], keepers: Sequence[str | None], holders: Sequence[Sequence[int]]
) -> int:
    """Return how many workers have no keeper on another machine."""
    pairs = zip(workers, holders, strict=True)
    return sum(not is_apart(worker, keepers, own) for worker, own in pairs)


def machines_for_more(
    workers: Sequence[str], keepers: Sequence[str], machines: Sequence[str]
) -> list[str]:
    """Return the machines on which new keepers are needed.

    They give workers a keeper on another machine, and then a second one on their own.
    """

    def together(held: Sequence[str]) -> int:
        return count_together(workers, held, assign_keepers(workers, held))

    found: list[str] = []
    while present := together([*keepers, *found]):
        counts = {name: together([*keepers, *found, name]) for name in machines}
        best = min(machines, key=lambda name: counts[name], default="")
        if not best or counts[best] >= present:
            break
        found.append(best)
    held = [*keepers, *found]
    pairs = zip(workers, assign_keepers(workers, held), strict=True)
    lacking = [name for name, own in pairs if len(own) == 1 and is_apart(name, held, own)]
    return found + [name for name in lacking if name in machines]


def find_former_copies(known: Sequence[Sequence[KnownCopy]]) -> FormerCopies | None:
    """Return the last point that the copies of all workers of an incarnation have.

    `known` is what each keeper holds. A worker may have several copies. Of several incarnations
    the one that came furthest counts.
    """
    by_incarnation: dict[str, dict[int, list[tuple[int, KnownCopy]]]] = {}
    for k, held in enumerate(known):
        for copy in held:
            of_all = by_incarnation.setdefault(copy.incarnation, {})
            of_all.setdefault(copy.rank, []).append((k, copy))
    found = [each for copies in by_incarnation.values() for each in _last_point(copies)]
    return max(found, key=lambda former: former.point, default=None)


def _last_point(copies: dict[int, list[tuple[int, KnownCopy]]]) -> Iterator[FormerCopies]:
    """Yield the last point of an incarnation, if all its workers have copies with one in common.

    `copies` are those of each worker, by rank, with their keepers.
    """
    some = next(iter(copies.values()))[0][1]
    common = set.intersection(
        *({point for _, copy in own for point in copy.points} for own in copies.values())
    )
    if len(copies) < some.size or not common:
        return
    last = max(common)
    chosen = [
        [(k, copy) for k, copy in copies[rank] if last in copy.points] for rank in range(some.size)
    ]
    with_tensors = [rank for rank, own in enumerate(chosen) if own[0][1].has_tensors]
    if with_tensors:
        holders = [[k for k, _ in own] for own in chosen]
        yield FormerCopies(some.incarnation, last, holders, min(with_tensors))
