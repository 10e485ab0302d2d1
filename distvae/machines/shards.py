"""Populations in Ray actors on several machines: the shards, and a worker's store over them.

The actors run `estep.shard.Shard` and belong to the process that launched them. One of the workers,
the chief, fills the shards and has them write their files. The others may read and write once it
has filled them.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.estep.shard import Shard, StaleShard
from distvae.estep.store import Draw, PopulationFile, check_populations_fit
from distvae.files.memory import available_memory
from distvae.files.refusal import Refusal
from distvae.machines.ray_api import ActorHandle, ObjectRef, RemoteMethod
from distvae.numerics.lanes import Lanes, Rows

MAX_PENDING_PUTS = 4
"""Puts in flight at most, so that they do not fill Ray's memory."""
MAX_PREFETCHED = 2
"""Blocks that are on their way here at most: the one whose turn it is, and the next."""
FILL_ATTEMPTS = 3
"""Attempts to fill a shard whose process ends meanwhile; the cause would end it again."""


class ShardActor(Shard):
    """A shard in an actor of Ray."""

    def status(self) -> dict[str, float]:
        """Return the shard's status, and whether Ray restarted its process."""
        import ray

        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        return super().status() | {"restarted": restarted}

    def memory_request(self) -> tuple[str, int, int]:
        """Return the machine, its free memory in bytes, and the rows that will need memory."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return node, available_memory(), self.rows_without_memory()


class Shards(NamedTuple):
    """The shards of a run, as every worker receives them."""

    actors: Sequence[ActorHandle]
    lanes: Lanes
    states: int
    words: int


def launch_shards(
    lanes: Lanes,
    count: int,
    states: int,
    words: int,
    mapped: str | None = None,
    nodes: Sequence[str] = (),
) -> Shards:
    """Start `count` empty shards, spread over the machines.

    With `nodes`, shard k starts on machine k, as long as that machine is alive.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ShardActor)
    actors = []
    for k in range(count):
        strategy = "SPREAD"
        if nodes:
            strategy = NodeAffinitySchedulingStrategy(nodes[k % len(nodes)], soft=True)
        placed = actor.options(scheduling_strategy=strategy)
        actors.append(placed.remote(lanes.held(k, count), states, words, mapped))
    return Shards(actors, lanes, states, words)


def end_shards(shards: Shards) -> None:
    """End the shards' processes."""
    import ray

    for actor in shards.actors:
        ray.kill(actor)


Positions = NDArray[np.int64] | slice
"""Which of some rows."""
PendingWords = list[tuple[Positions, ObjectRef]]
"""For each of several shards, the rows that it holds and the words that it will return."""


class ShardedStore:
    """The populations of all rows, for one worker; no two workers may put the same row."""

    def __init__(self, shards: Shards, chief: bool = True) -> None:
        self.shards, self.chief = shards, chief
        self.seconds = {"get": 0.0, "put": 0.0}
        self.restarts = 0
        self._forget()

    def _forget(self) -> None:
        """Forget what is known of the shards, because they are filled anew."""
        self.incarnations: list[str] = []
        self.step = 0
        self.prefetched: deque[tuple[Tensor, PendingWords]] = deque(maxlen=MAX_PREFETCHED)
        self.pending_puts: deque[ObjectRef] = deque()

    def initialise(self, draw: Draw) -> None:
        """Have the shards draw the first states of their rows."""
        self._fill("initialise", draw)

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Have the shards read the files of a generation, however many shards wrote them."""
        self._fill("restore", _absolute(folder), files)

    def _fill(self, method: str, *arguments: object) -> None:
        """Have all shards fill themselves by a method, if this worker is the chief."""
        self._forget()
        if not self.chief:
            return
        for state in self.status():
            self.restarts += bool(state["restarted"] and not state["filled"])
        self._refuse_too_little_memory()
        options = {"max_task_retries": FILL_ATTEMPTS - 1}
        try:
            self.incarnations = self._call_all(method, *arguments, options=options)
        except StaleShard as error:
            raise Refusal(
                f"estep.states: the process of a shard ended {FILL_ATTEMPTS} times while it was"
                f" filled, the last time as {error.__cause__!r}; fewer states or more memory"
                " expected"
            ) from error

    def _refuse_too_little_memory(self) -> None:
        """Refuse to fill shards that fit in the memory of their machine alone but not together."""
        free: dict[str, int] = {}
        rows = Counter[str]()
        for node, available, lacking in self._call_all("memory_request"):
            free[node] = min(available, free.get(node, available))
            rows[node] += lacking
        for node, count in rows.items():
            check_populations_fit(free[node], count, self.shards.states, self.shards.words)

    def _call_all(
        self, method: str, *arguments: object, options: Mapping[str, object] | None = None
    ) -> list[Any]:
        """Call a method of all shards side by side; return the answers."""
        pending = []
        for actor in self.shards.actors:
            remote: RemoteMethod = getattr(actor, method)
            pending.append(remote.options(**(options or {})).remote(*arguments))
        return [_answer(ref) for ref in pending]

    def get(self, rows: Tensor) -> Tensor:
        """Return the words (B, S, W) of rows."""
        words = np.empty((len(rows), self.shards.states, self.shards.words), np.int64)
        with self._timed("get"):
            for positions, pending in self._requested(rows):
                words[positions] = _answer(pending)
        return torch.from_numpy(words)

    def _requested(self, rows: Tensor) -> PendingWords:
        """Return the words that were prefetched, or request them now."""
        for k, (prefetched, pending) in enumerate(self.prefetched):
            if torch.equal(prefetched, rows):
                del self.prefetched[k]
                return pending
        return self._request(rows)

    def prefetch(self, rows: Tensor) -> None:
        """Request the words of the next block."""
        self.prefetched.append((rows, self._request(rows)))

    def _request(self, rows: Tensor) -> PendingWords:
        """Request the words of rows from the shards that hold them."""
        numbers = rows.numpy()
        pending: PendingWords = []
        for k, positions in self._by_shard(numbers):
            get = self.shards.actors[k].get
            pending.append((positions, get.remote(numbers[positions], self._incarnation(k))))
        return pending

    def _by_shard(self, rows: Rows) -> Iterator[tuple[int, Positions]]:
        """Yield each shard that holds some of the rows, and their positions."""
        shard_of_row = rows % self.shards.lanes.count % len(self.shards.actors)
        shards = np.unique(shard_of_row).tolist()
        for k in shards:
            # A slice needs no copy.
            yield k, np.flatnonzero(shard_of_row == k) if len(shards) > 1 else slice(None)

    def _incarnation(self, k: int) -> str:
        if not self.incarnations:
            self.incarnations = self._call_all("incarnation")
        return self.incarnations[k]

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of rows; return before the shards have received them."""
        self.step += 1
        still_valid = [block for block in self.prefetched if not torch.isin(rows, block[0]).any()]
        self.prefetched = deque(still_valid, maxlen=MAX_PREFETCHED)
        with self._timed("put"):
            numbers, values = rows.numpy(), words.cpu().numpy()
            for k, positions in self._by_shard(numbers):
                put = self.shards.actors[k].put
                arguments = numbers[positions], values[positions], self.step, self._incarnation(k)
                self.pending_puts.append(put.remote(*arguments))
            self._wait_for_puts(MAX_PENDING_PUTS)

    def drain(self) -> None:
        """Wait until the shards have received all puts."""
        with self._timed("put"):
            self._wait_for_puts(0)

    def _wait_for_puts(self, limit: int) -> None:
        """Wait until at most `limit` puts are in flight."""
        while len(self.pending_puts) > limit:
            _answer(self.pending_puts.popleft())

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Have the shards write new files; return how a checkpoint names them.

        All workers have to drain their stores before.
        """
        self.drain()
        if not self.chief:
            return []
        place = _absolute(folder)
        pending = []
        for k, actor in enumerate(self.shards.actors):
            pending.append(actor.snapshot.remote(place, generation, self._incarnation(k)))
        return [_answer(ref) for ref in pending]

    def status(self) -> list[dict[str, float]]:
        """Return the status of each shard."""
        return self._call_all("status")

    def timings(self) -> dict[str, float]:
        """Return the seconds spent waiting since the last call, and the restarts of shards."""
        figures = {f"store_{what}_seconds": value for what, value in self.seconds.items()}
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        return figures | {"shard_restarts": self.restarts}

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - began


def _absolute(folder: Path | str) -> str:
    """Return a folder's place for processes whose current folder is another."""
    return str(folder) if "://" in str(folder) else str(Path(folder).absolute())


def _answer(ref: ObjectRef) -> Any:
    """Return a shard's answer, or raise its error."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise StaleShard(f"a shard is out of reach: {error}") from error
