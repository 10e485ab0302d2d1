"""Snapshots of a training in the memory of Ray actors, from which it goes on after a loss.

Every `COPY_SECONDS`, at the end of a block of rows, each worker sends a snapshot to an actor on
another machine, and to one on its own machine, so that the loss of any one machine leaves a
snapshot of every worker. A snapshot has the populations of the worker's rows; the snapshot of the
first worker also has the parameters and the moments of the optimiser. The driver starts the actors,
which therefore survive the workers.

Workers that are restarted read their rows from the last snapshot that is complete for all former
workers, whatever the number of workers was and is. This module imports neither torch nor Ray at its
top, because an actor needs neither.
"""

import mmap
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.refusal import cause
from distvae.machines.session import ActorHandle, ObjectRef

if TYPE_CHECKING:
    from torch import Tensor

    from distvae.estep.store import HeldPopulations
    from distvae.train.checkpoint import PositionFacts
    from distvae.train.loop import Trainer
    from distvae.train.team import Team

COPY_SECONDS = 20.0
"""Seconds from one snapshot to the next, at least."""
COPY_SHARE = 0.05
"""The largest share of the time that sending snapshots takes."""
LOOK_SECONDS = 5.0
"""Seconds between two comparisons of the workers' clocks, about."""
PART_BYTES = 8 * 2**20
"""Bytes of words, or of tensors, that are sent together."""
MAX_UNANSWERED = 4
"""Messages to an actor that are not answered yet, at most."""
SILENT_SECONDS = 10.0
"""Seconds in which an actor has to answer a worker."""
START_SECONDS = 20.0
"""Seconds in which an actor has to answer workers that start; the actor may be starting too."""


class Moment(NamedTuple):
    """A moment of a training at which all workers sent a snapshot."""

    epoch: int
    batch: int
    start: str
    """A name for one start of the workers."""
    workers: int


class Known(NamedTuple):
    """A complete snapshot of one worker, as its actor describes it."""

    moment: Moment
    rank: int
    parts: int
    position: "PositionFacts"


class Snapshot:
    """A snapshot of one worker, in parts; without a position until all parts have arrived."""

    def __init__(self) -> None:
        self.parts: list[bytes | mmap.mmap] = []
        self.position: PositionFacts | None = None


class ShardActor:
    """Holds a complete snapshot of each worker, and the next snapshot while it arrives."""

    def __init__(self, mapped: str | None = None) -> None:
        self.mapped = mapped
        """A folder for unnamed files in which parts are kept; None for memory."""
        self.snapshots: dict[tuple[Moment, int], Snapshot] = {}

    def begin(self, moment: Moment, rank: int, kept: Moment | None) -> None:
        """Begin a snapshot of a worker; forget the worker's snapshots except the kept one."""
        for other, sender in [*self.snapshots]:
            if sender == rank and other.start == moment.start and other != kept:
                del self.snapshots[other, sender]
        self.snapshots[moment, rank] = Snapshot()

    def put(self, moment: Moment, rank: int, part: bytes) -> None:
        """Add a part to a snapshot; forget the snapshot if the disk has no room for the part."""
        snapshot = self.snapshots.pop((moment, rank))
        snapshot.parts.append(part if self.mapped is None else self._map(part))
        self.snapshots[moment, rank] = snapshot

    def _map(self, part: bytes) -> mmap.mmap:
        with tempfile.TemporaryFile(dir=self.mapped, prefix="distvae-snapshot-") as file:
            file.write(part)
            file.flush()
            return mmap.mmap(file.fileno(), len(part), access=mmap.ACCESS_READ)

    def finish(self, moment: Moment, rank: int, position: "PositionFacts") -> None:
        """Complete a snapshot."""
        self.snapshots[moment, rank].position = position

    def known(self) -> list[Known]:
        """Return the snapshots that are complete."""
        return [
            Known(moment, rank, len(snapshot.parts), snapshot.position)
            for (moment, rank), snapshot in self.snapshots.items()
            if snapshot.position is not None
        ]

    def read(self, moment: Moment, rank: int, number: int) -> bytes:
        """Return a part of a snapshot."""
        return bytes(self.snapshots[moment, rank].parts[number])

    def forget_others(self, start: str) -> None:
        """Forget the snapshots of other starts of the workers."""
        for moment, rank in [*self.snapshots]:
            if moment.start != start:
                del self.snapshots[moment, rank]


def actor_name(owner: str, node: str) -> str:
    """Return the name of the actor of a training on a machine, which is given by Ray's id."""
    return f"shard-{owner}-{node}"


def start_actor(owner: str, node: str, mapped: str | None) -> ActorHandle:
    """Start an actor on a machine. If its process is lost, Ray starts another one there.

    Ray ends the actor when this process, or the handle, is gone.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(ShardActor)
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    options = actor.options(name=actor_name(owner, node), scheduling_strategy=place)
    handle: ActorHandle = options.remote(mapped)
    return handle


def find_actors(owner: str) -> dict[str, ActorHandle]:
    """Return the actors of a training by name."""
    import ray

    prefix, found = actor_name(owner, ""), dict[str, ActorHandle]()
    for name in ray.util.list_named_actors():
        if name.startswith(prefix):
            with suppress(ValueError):  # the actor has just ended
                found[name] = ray.get_actor(name)
    return found


def known_snapshots(owner: str) -> dict[str, list[Known]]:
    """Return the complete snapshots of each actor of a training that answers."""
    import ray

    asked = {name: actor.known.remote() for name, actor in find_actors(owner).items()}
    if asked:
        ray.wait([*asked.values()], num_returns=len(asked), timeout=START_SECONDS)
    found = {}
    for name, ref in asked.items():
        with suppress(ray.exceptions.RayError):  # its process is lost or silent
            found[name] = ray.get(ref, timeout=0)
    return found


def last_complete(known: Mapping[str, Sequence[Known]]) -> list[tuple[str, Known]]:
    """Return the snapshots of the last moment at which all workers have a complete one, with the
    names of their actors, in order of rank; none if there is no such moment.
    """
    moments: dict[Moment, dict[int, tuple[str, Known]]] = {}
    for name, snapshots in known.items():
        for snapshot in snapshots:
            moments.setdefault(snapshot.moment, {})[snapshot.rank] = (name, snapshot)
    complete = [moment for moment, held in moments.items() if len(held) == moment.workers]
    return [held for _, held in sorted(moments[max(complete)].items())] if complete else []


def plan_homes(workers: Sequence[str], machines: Sequence[str]) -> list[list[str]]:
    """Return the machines to which each worker sends its snapshots, the worker's own one last.

    The other machine is the next machine with workers, or any machine if all workers share one.
    """
    ring = sorted(set(workers))
    if len(ring) == 1:
        ring += [machine for machine in sorted(machines) if machine not in ring][:1]
    following = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    return [[following[own], own] if len(ring) > 1 else [own] for own in workers]


class Shards:
    """The snapshots of a training, as one of its workers sends and reads them.

    All workers make the same calls at the same moments.
    """

    def __init__(
        self,
        team: "Team",
        owner: str,
        homes: Sequence[str],
        seconds: float = COPY_SECONDS,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.team, self.owner, self.say = team, owner, say
        self.homes, self.seconds = homes, seconds
        """The machines of this worker's snapshots, and the seconds between two of them."""
        self.start = team.gather(secrets.token_hex(8))[0]
        self.found: list[tuple[str, Known]] = []
        """The snapshots from which training can go on, and the names of their actors."""
        self.kept: Moment | None = None
        """The last moment at which the snapshots of all workers are known to be complete."""
        self.sent: Moment | None = None
        self.actors: dict[str, ActorHandle] = {}
        """The actors that take the snapshot that was sent last, and have not failed."""
        self.unanswered: dict[str, list[ObjectRef]] = {}
        """Messages to each of these actors that are not answered."""
        self.failed: set[str] = set()
        """The machines whose loss of a snapshot was told, and that have taken none since."""
        self.looked = time.monotonic()
        self.due = self.looked + seconds
        self.calls, self.calls_until_look = 0, 1

    def find(self) -> bool:
        """Find the last complete snapshots; return whether there are any."""
        found = last_complete(known_snapshots(self.owner)) if self.team.rank == 0 else []
        told = self.team.gather(found)[0]
        self.found = [
            (name, Known(Moment(*moment), rank, parts, position))
            for name, (moment, rank, parts, position) in told
        ]
        return bool(self.found)

    def restore(self, trainer: "Trainer", saved: tuple[int, int] | None) -> bool:
        """Restore the snapshots that were found, if they are later than a saved epoch and batch.

        Return whether they were. Raise WorkerLost if an actor has ended since.
        """
        from safetensors.torch import load

        if not self.found or not has_all_state(trainer):
            return False
        _, first = self.found[0]
        if saved is not None and first.moment[:2] <= saved:
            return False
        count = self._restore_populations(store_of(trainer))
        tensors = b"".join(self._read(0, number) for number in range(count, first.parts))
        trainer.restore(load(tensors), first.position)
        return True

    def _restore_populations(self, store: "HeldPopulations | None") -> int:
        """Read the states of this worker's rows; return the parts with states of worker 0."""
        import torch

        from distvae.estep.store import unpacked

        if store is None:
            return 0
        parts_of_first = 0
        for rank in range(len(self.found)):
            theirs = store.held.lanes.held(rank, len(self.found))
            for number, part in enumerate(row_parts(len(theirs), store.shape)):
                parts_of_first += rank == 0
                rows = theirs.part(part)
                held = store.held.contains(rows)
                if held.any():
                    words = unpacked(self._read(rank, number), len(rows), store.shape)
                    store.put(torch.from_numpy(rows[held]), words[torch.from_numpy(held)])
        return parts_of_first

    def _read(self, rank: int, number: int) -> bytes:
        """Return a part of a former worker's snapshot."""
        import ray

        from distvae.train.team import WorkerLost

        name, snapshot = self.found[rank]
        try:
            actor = ray.get_actor(name)
        except ValueError as error:
            raise WorkerLost(f"{name} has ended") from error
        ref = actor.read.remote(snapshot.moment, rank, number)
        part: bytes = ray.get(ref, timeout=START_SECONDS)
        return part

    def send_if_due(self, trainer: "Trainer") -> None:
        """Send a snapshot if the last one is long ago, by the first worker's clock.

        All workers call it at the same block's end, when they have the same parameters. They
        compare clocks at few of these calls. Sending ends in the background; whether the snapshot
        has arrived is asked before the next one.
        """
        self.calls += 1
        if self.calls < self.calls_until_look or not self._is_due() or not has_all_state(trainer):
            return
        began = time.monotonic()
        self._confirm()
        tensors, position = trainer.state()
        self.sent = Moment(position["epoch"], position["batch"], self.start, self.team.size)
        self._find_actors()
        self._send("begin", self.kept)
        for part in self._parts(trainer, tensors):
            self._send("put", part)
        self._send("finish", position)
        ended = time.monotonic()
        self.due = ended + max(self.seconds, (ended - began) / COPY_SHARE)

    def _is_due(self) -> bool:
        """Return whether a snapshot is due, the same on all workers, and choose the number of calls
        until they look again.
        """
        now = time.monotonic()
        due, passed = self.team.gather((now >= self.due, now - self.looked))[0]
        calls = int(self.calls * min(LOOK_SECONDS, self.seconds) / max(passed, 1e-3))
        self.calls_until_look = min(max(calls, 1), 2 * self.calls_until_look)
        self.calls, self.looked = 0, now
        return due

    def _confirm(self) -> None:
        """Learn whether the snapshots that were sent last are complete for all workers."""
        for home in [*self.actors]:
            self._await_answers(home, 0)
        self.failed -= self.actors.keys()
        if self.sent is None or not all(self.team.gather(bool(self.actors))):
            return
        if self.kept is None and self.team.rank == 0:
            for actor in find_actors(self.owner).values():
                actor.forget_others.remote(self.start)
        self.kept = self.sent

    def _find_actors(self) -> None:
        """Find the actors on the machines to which this worker sends its snapshots."""
        import ray

        self.actors = {}
        for home in self.homes:
            with suppress(ValueError):  # the actor is not started, or its machine is lost
                self.actors[home] = ray.get_actor(actor_name(self.owner, home))
        self.unanswered = {home: [] for home in self.actors}

    def _parts(self, trainer: "Trainer", tensors: "Mapping[str, Tensor]") -> Iterator[bytes]:
        """Yield the parts of this worker's snapshot: populations, then tensors if it is first."""
        from distvae.estep.store import packed, parts_of
        from distvae.train.checkpoint import pack_tensors

        if (store := store_of(trainer)) is not None:
            for rows in row_parts(store.shape[0], store.shape):
                yield packed(store, rows)
        if self.team.rank == 0:
            content = pack_tensors(tensors)
            for part in parts_of(len(content), PART_BYTES):
                yield content[part]

    def _send(self, method: str, value: object) -> None:
        """Call a method of each actor that takes this snapshot."""
        import ray

        message = ray.put(value) if method == "put" and len(self.actors) > 1 else value
        for home in [*self.actors]:
            self._await_answers(home, MAX_UNANSWERED - 1)
        for home, actor in self.actors.items():
            ref = getattr(actor, method).remote(self.sent, self.team.rank, message)
            self.unanswered[home].append(ref)

    def _await_answers(self, home: str, left: int) -> None:
        """Wait until `left` messages to an actor are unanswered; leave an actor that fails."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        messages = self.unanswered[home]
        try:
            while len(messages) > left:
                ray.get(messages[0], timeout=SILENT_SECONDS)
                del messages[0]
        except GetTimeoutError:
            self.say(f"a shard has not answered for {SILENT_SECONDS:.0f} s; it is replaced")
            ray.kill(self.actors.pop(home), no_restart=False)
        except RayError as error:
            reason = cause(getattr(error, "cause", None) or error).partition("\n")[0]
            if home not in self.failed:
                self.say(f"a snapshot of worker {self.team.rank} is lost ({reason})")
            self.failed.add(home)
            del self.actors[home]


def store_of(trainer: "Trainer") -> "HeldPopulations | None":
    """Return the populations of a worker, if its E-step keeps any."""
    from distvae.estep.store import KeepsPopulations

    return trainer.estep.populations() if isinstance(trainer.estep, KeepsPopulations) else None


def has_all_state(trainer: "Trainer") -> bool:
    """Return whether snapshots have all state of a training.

    The files of an E-step that was registered by others are in no snapshot.
    """
    from distvae.interface import Persistent

    return store_of(trainer) is not None or not isinstance(trainer.estep, Persistent)


def row_parts(rows: int, shape: Sequence[int]) -> Iterator[slice]:
    """Yield the parts in which the states of rows are sent, for a store of a shape."""
    from distvae.estep.store import parts_of

    _, states, words = shape
    return parts_of(rows, max(1, PART_BYTES // (8 * states * words)))
