"""Shards in real Ray actors: what one process would hold, through restarts, and nothing left
behind.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
from torch import Tensor

from distvae.estep.shard import StaleShard
from distvae.estep.store import LocalStore, PopulationStore, empty_populations
from distvae.estep.truncated import first_states
from distvae.files.memory import available_memory
from distvae.files.refusal import Refusal
from distvae.interface import Asynchronous
from distvae.machines.ray_session import ray_session
from distvae.machines.shards import ShardedStore, Shards, launch_shards
from distvae.numerics.lanes import Lanes

pytestmark = pytest.mark.slow

ROWS, STATES, WIDTH = 1000, 8, 3
LANES = Lanes(ROWS, 8)
EVERY = torch.arange(ROWS)
draw = partial(first_states, STATES, 150, 0)


@pytest.fixture(scope="module", autouse=True)
def running() -> Iterator[None]:
    with ray_session(None, 1):
        yield


@pytest.fixture
def started() -> Iterator[Callable[[int], Shards]]:
    """Starts shards, and ends them after the test."""
    import ray

    all_of_them: list[Shards] = []

    def start(count: int) -> Shards:
        all_of_them.append(launch_shards(LANES, count, STATES, WIDTH))
        return all_of_them[-1]

    yield start
    for shards in all_of_them:
        for actor in shards.actors:
            ray.kill(actor)


def local() -> LocalStore:
    store = LocalStore(empty_populations(ROWS, STATES, WIDTH), LANES.held())
    store.initialise(draw)
    return store


def visit(stores: list[PopulationStore], seed: int) -> None:
    """Give every store the same new words, block by block, and look at each block as training
    does.
    """
    order = torch.from_numpy(LANES.schedule(seed, 0))
    blocks = order.split(96)
    for rows, following in zip(blocks, [*blocks[1:], blocks[0]], strict=True):
        new = torch.randint(
            0, 2**62, (len(rows), STATES, WIDTH), generator=torch.Generator().manual_seed(seed)
        )
        for store in stores:
            if isinstance(store, Asynchronous):
                store.prefetch(following)
            store.put(rows, store.get(rows) ^ new)
    for part in order.split(32):
        assert torch.equal(stores[0].get(part), stores[1].get(part))


@pytest.mark.parametrize("count", [1, 3])
def test_shards_hold_what_one_process_would(
    started: Callable[[int], Shards], tmp_path: Path, count: int
) -> None:
    store, other, whole = ShardedStore(started(count)), ShardedStore(started(2)), local()
    store.initialise(draw)
    for seed in range(3):
        visit([store, whole], seed)
    store.drain()
    assert torch.equal(store.get(EVERY), whole.get(EVERY))
    other.load(tmp_path, store.save(tmp_path, "1"))
    assert torch.equal(other.get(EVERY), whole.get(EVERY))
    timings = store.timings()
    assert timings["store_get_seconds"] > 0 < timings["store_put_seconds"]
    assert sum(state["rows"] for state in store.status()) == ROWS


def test_two_workers_see_what_each_other_has_put(
    started: Callable[[int], Shards], tmp_path: Path
) -> None:
    shards, whole = started(3), local()
    chief, other = ShardedStore(shards), ShardedStore(shards, chief=False)
    chief.initialise(draw)
    other.initialise(draw)
    for rank, store in enumerate((chief, other)):
        assert store.get(EVERY[:0]).shape == (0, STATES, WIDTH)
        store.put(EVERY[:0], draw(EVERY)[:0])
        rows = torch.from_numpy(LANES.held(rank, 2).rows())
        words = draw(rows) ^ 1
        store.put(rows, words)
        whole.put(rows, words)
        store.drain()
    assert torch.equal(chief.get(EVERY), whole.get(EVERY))
    assert torch.equal(other.get(EVERY), whole.get(EVERY))
    assert other.save(tmp_path, "1") == []
    assert len(chief.save(tmp_path, "1")) == 3


def test_a_block_brought_ahead_is_brought_again_when_its_rows_were_put_since(
    started: Callable[[int], Shards],
) -> None:
    store = ShardedStore(started(2))
    store.initialise(draw)
    rows, overlapping = EVERY[:64], EVERY[32:96]
    store.prefetch(overlapping)
    store.put(rows, draw(rows) ^ 1)
    assert torch.equal(
        store.get(overlapping), torch.cat([draw(rows[32:]) ^ 1, draw(overlapping[32:])])
    )


def killed(shards: Shards, which: int) -> None:
    """Kill a shard, and wait until another process has taken its place: Ray answers before it
    kills.
    """
    import ray

    actor = shards.actors[which]
    ray.kill(actor, no_restart=False)
    while not ray.get(actor.status.remote())["restarted"]:
        time.sleep(0.05)


def test_a_killed_shard_is_recognised_and_the_checkpoint_brings_it_back(
    started: Callable[[int], Shards], tmp_path: Path
) -> None:
    shards, whole = started(2), local()
    store = ShardedStore(shards)
    store.initialise(draw)
    visit([store, whole], 0)
    files, kept = store.save(tmp_path, "1"), whole.get(EVERY)
    visit([store, whole], 1)
    store.drain()
    killed(shards, 1)
    with pytest.raises(StaleShard):
        store.get(EVERY)
    with pytest.raises(StaleShard):
        store.save(tmp_path, "2")
    again = ShardedStore(shards)
    again.load(tmp_path, files)
    assert torch.equal(again.get(EVERY), kept)
    assert again.timings()["shard_restarts"] == 1
    visit([again, local_of(kept)], 1)
    assert torch.equal(again.get(EVERY), whole.get(EVERY))


def local_of(words: Tensor) -> LocalStore:
    return LocalStore(words.clone(), LANES.held())


def test_a_put_to_a_killed_shard_is_heard_of_when_it_is_drained(
    started: Callable[[int], Shards],
) -> None:
    shards = started(1)
    store = ShardedStore(shards)
    store.initialise(draw)
    killed(shards, 0)
    store.put(EVERY, draw(EVERY))
    with pytest.raises(StaleShard):
        store.drain()


def test_what_a_shard_refuses_is_refused_in_its_words(
    started: Callable[[int], Shards], tmp_path: Path
) -> None:
    store = ShardedStore(started(2))
    store.initialise(draw)
    files = store.save(tmp_path, "1")
    (tmp_path / files[1]["file"]).unlink()
    with pytest.raises(Refusal) as refused:
        store.load(tmp_path, files)
    assert str(refused.value) == f"{tmp_path / files[1]['file']}: missing; the checkpoint names it"


def test_shards_that_have_room_alone_and_not_together_are_refused_before_they_are_filled() -> None:
    def nothing(rows: Tensor) -> Tensor:
        raise InterruptedError(f"{len(rows)} rows are drawn")

    states = int(0.7 * available_memory() / (ROWS / 2 * WIDTH * 8))
    with pytest.raises(Refusal, match=r"states for 1,000 rows need .* of memory are free"):
        ShardedStore(launch_shards(LANES, 2, states, WIDTH)).initialise(nothing)


def test_a_shard_whose_filling_ends_its_process_is_not_filled_for_ever(
    started: Callable[[int], Shards],
) -> None:
    def deadly(rows: Tensor) -> Tensor:
        os._exit(len(rows))

    with pytest.raises(
        Refusal, match=r"estep\.states: the process of a shard ended 3 times while it was filled"
    ):
        ShardedStore(started(1)).initialise(deadly)


PROGRAM = f"""
import os, sys, time
from functools import partial
from distvae.machines.shards import ShardedStore, launch_shards
from distvae.estep.truncated import first_states
from distvae.numerics.lanes import Lanes
from distvae.machines.ray_session import ray_session
with ray_session(None, 1):
    import ray
    shards = launch_shards(Lanes({ROWS}, 8), 2, {STATES}, {WIDTH})
    ShardedStore(shards).initialise(partial(first_states, {STATES}, 150, 0))
    pids = [shard.__ray_call__.remote(lambda self: os.getpid()) for shard in shards.actors]
    print(*ray.get(pids), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["shutdown", "kill"])
def test_shards_end_with_the_process_that_launched_them(end: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=PIPE, stdout=PIPE, text=True)
    assert program.stdin
    assert program.stdout
    processes = [Path("/proc") / number for number in program.stdout.readline().split()]
    assert len(processes) == 2
    assert all(process.exists() for process in processes)
    if end == "kill":
        program.kill()
    program.communicate("\n")
    for _ in range(600):
        if not any(process.exists() for process in processes):
            break
        time.sleep(0.1)
    assert not any(process.exists() for process in processes)
