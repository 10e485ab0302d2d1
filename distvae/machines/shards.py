"""Populations in Ray actors, spread over machines: the shards, and the store that a worker sees of
them.

The actors run `shard.Shard` and belong to the process that launched them. One of the workers, the
chief, fills them and has them write their files; the others may read and write as soon as it has
done so.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distvae.estep.shard import Shard, StaleShard
from distvae.estep.store import Draw, PopulationFile, check_populations_fit
from distvae.files.memory import available_memory
from distvae.files.refusal import Refusal
from distvae.numerics.lanes import Lanes, Rows

UNANSWERED = 4  # puts under way at most, lest they fill Ray's memory
AHEAD = 2  # blocks asked for and not yet taken: the one whose turn it is, and the next

FILLED = (
    3  # times that a shard is filled whose process ends while it is: what ends it would do so again
)


class ShardActor(Shard):
    """A shard as Ray runs it, which knows whether Ray had to start it again."""

    def status(self) -> dict[str, float]:
        """The same, and whether it began anew in another process."""
        import ray

        return super().status() | {
            "restarted": ray.get_runtime_context().was_current_actor_reconstructed
        }

    def memory_request(self) -> tuple[str, int, int]:
        """Its machine, how many bytes of memory are free there, and for how many rows it will take
        of them.
        """
        import ray

        return (
            ray.get_runtime_context().get_node_id(),
            available_memory(),
            self.rows_without_memory(),
        )


class Shards(NamedTuple):
    """What a worker has to be told of the shards."""

    actors: list[Any]
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
    """Start so many empty shards: shard k on node k where nodes are named, as long as it lives,
    else spread.
    """
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ShardActor)
    placed = [actor.options(scheduling_strategy=_strategy(nodes, k)) for k in range(count)]
    actors = [
        one.remote(lanes.held(k, count), states, words, mapped) for k, one in enumerate(placed)
    ]
    return Shards(actors, lanes, states, words)


def _strategy(nodes: Sequence[str], k: int) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(nodes[k % len(nodes)], soft=True) if nodes else "SPREAD"


Asked = list[tuple[Any, Any]]
"""Where the words of each of some shards go, and their promise."""


class ShardedStore:
    """The populations of all rows, for one worker; no two workers may put the same row."""

    def __init__(self, shards: Shards, chief: bool = True) -> None:
        self.shards, self.chief = shards, chief
        self.waited = {"get": 0.0, "put": 0.0}
        self.restarts = 0
        self._forget()

    def _forget(self) -> None:
        """Nothing is known of the shards, which are filled or were filled by another worker."""
        self.incarnations: list[str] = []
        self.step = 0
        self.coming: deque[tuple[Tensor, Asked]] = deque(maxlen=AHEAD)
        self.unanswered: deque[Any] = deque()

    def initialise(self, draw: Draw) -> None:
        """Have the shards draw the first states of their rows."""
        self._fill("initialise", draw)

    def load(self, folder: Path | str, files: Sequence[PopulationFile]) -> None:
        """Have the shards read the files of a generation, however many wrote them."""
        self._fill("restore", _anywhere(folder), files)

    def _fill(self, call: str, *arguments: Any) -> None:
        self._forget()
        if self.chief:
            self.restarts += sum(
                1 for state in self.status() if state["restarted"] and not state["filled"]
            )
            self._refuse_to_overfill()
            try:
                self.incarnations = self._all(call, *arguments, max_task_retries=FILLED - 1)
            except StaleShard as error:
                raise Refusal(
                    f"estep.states: the process of a shard ended {FILLED} times while it was"
                    f" filled, the last time as {error.__cause__!r}; fewer states or more memory"
                    " expected"
                ) from error

    def _refuse_to_overfill(self) -> None:
        """Shards of one machine share its memory: what each has room for alone may be too much for
        all of them.
        """
        free, rows = dict[str, int](), Counter[str]()
        for node, left, lacking in self._all("memory_request"):
            free[node] = min(left, free.get(node, left))
            rows[node] += lacking
        for node in rows:
            check_populations_fit(free[node], rows[node], self.shards.states, self.shards.words)

    def _all(self, call: str, *arguments: Any, **options: Any) -> list[Any]:
        """The answers of all shards, which work side by side."""
        return _answers(
            [getattr(one, call).options(**options).remote(*arguments) for one in self.shards.actors]
        )

    def get(self, rows: Tensor) -> Tensor:
        """(B, S, W) the words of these rows."""
        words = np.empty((len(rows), self.shards.states, self.shards.words), np.int64)
        with self._waiting("get"):
            for place, promise in self._promised(rows):
                words[place] = _answer(promise)
        return torch.from_numpy(words)

    def _promised(self, rows: Tensor) -> Asked:
        """What was asked for ahead, or is asked for now."""
        for k, (expected, promises) in enumerate(self.coming):
            if torch.equal(expected, rows):
                del self.coming[k]
                return promises
        return self._ask(rows)

    def prefetch(self, rows: Tensor) -> None:
        """Have the words of these rows brought here: the next block."""
        self.coming.append((rows, self._ask(rows)))

    def _ask(self, rows: Tensor) -> Asked:
        own = rows.numpy()
        return [
            (place, self.shards.actors[k].get.remote(own[place], self._incarnation(k)))
            for k, place in self._split(own)
        ]

    def _split(self, rows: Rows) -> Iterator[tuple[int, Any]]:
        """The shards that hold some of these rows, and which of them; all of one shard need no
        copy.
        """
        holder = rows % self.shards.lanes.count % len(self.shards.actors)
        holders = np.unique(holder).tolist()
        for k in holders:
            yield k, np.flatnonzero(holder == k) if len(holders) > 1 else slice(None)

    def _incarnation(self, k: int) -> str:
        if not self.incarnations:
            self.incarnations = self._all("incarnation")
        return self.incarnations[k]

    def put(self, rows: Tensor, words: Tensor) -> None:
        """Replace the words of these rows; the shards hear of it soon."""
        self.step += 1
        current = [ahead for ahead in self.coming if not torch.isin(rows, ahead[0]).any()]
        self.coming = deque(current, maxlen=AHEAD)
        with self._waiting("put"):
            own, new = rows.numpy(), words.cpu().numpy()
            for k, place in self._split(own):
                put = self.shards.actors[k].put
                self.unanswered.append(
                    put.remote(own[place], new[place], self.step, self._incarnation(k))
                )
            self._hear(UNANSWERED)

    def drain(self) -> None:
        """Wait until all that was put is where it belongs."""
        with self._waiting("put"):
            self._hear(0)

    def _hear(self, most: int) -> None:
        """Wait until no more than so many puts are under way."""
        while len(self.unanswered) > most:
            _answer(self.unanswered.popleft())

    def save(self, folder: Path | str, generation: str) -> list[PopulationFile]:
        """Have the shards write new files, after all workers have drained; how a checkpoint names
        them.
        """
        self.drain()
        if not self.chief:
            return []
        place, shards = _anywhere(folder), enumerate(self.shards.actors)
        return _answers(
            [shard.snapshot.remote(place, generation, self._incarnation(k)) for k, shard in shards]
        )

    def status(self) -> list[dict[str, float]]:
        """What each shard tells of itself."""
        return self._all("status")

    def telemetry(self) -> dict[str, float]:
        """Seconds spent waiting since the last time, and how often shards had to be started
        again.
        """
        told = {f"store_{what}_seconds": seconds for what, seconds in self.waited.items()}
        self.waited = dict.fromkeys(self.waited, 0.0)
        return told | {"shard_restarts": self.restarts}

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.waited[what] += time.perf_counter() - began


def _anywhere(folder: Path | str) -> str:
    """A folder as other processes find it, whose current one is another."""
    return str(folder) if "://" in str(folder) else str(Path(folder).absolute())


def _answers(promises: list[Any]) -> list[Any]:
    return [_answer(promise) for promise in promises]


def _answer(promise: Any) -> Any:
    """What a shard answers; its errors are raised as they were there."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(promise)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise StaleShard(f"a shard is out of reach: {error}") from error
