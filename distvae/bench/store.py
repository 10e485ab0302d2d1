"""Time populations of many rows in shards on this machine: initialising them, reading and writing
blocks, saving and loading.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from distvae.bench.output import Output
from distvae.bench.timing import time_call, timed_call
from distvae.estep.truncated import first_states
from distvae.files.refusal import Refusal
from distvae.machines.ray_session import ray_session
from distvae.machines.shards import ShardedStore, end_shards, launch_shards
from distvae.models.population import words_of
from distvae.numerics.lanes import Lanes

STATES, LATENT = 64, 512
BATCH, BLOCK = 1024, 1024


def bench_store(rows: int, shards: int, blocks: int, storage: Path | None, output: Output) -> None:
    """Time the populations of some rows in some shards; `storage` is where they are saved."""
    settings = {
        "rows": rows,
        "shards": shards,
        "blocks": blocks,
        "states": STATES,
        "latent": LATENT,
    }
    with ray_session(None, 1):
        figures = measure_store(rows, shards, blocks, storage)
    output.show({**settings, **figures}, _describe_store(settings, figures))
    output.keep(f"store-{rows}", figures, settings)


def _describe_store(settings: dict[str, int], f: dict[str, float]) -> str:
    size = f"{settings['rows']:,} rows of {STATES} states of {LATENT} bits"
    lines = [
        f"{size} on {settings['shards']} shards: {f['held_gb']:.2f} GB",
        f"  first states drawn in {f['begin_s']:.1f} s; saved in {f['save_s']:.1f} s"
        f" ({f['saved_gb']:.2f} GB); loaded in {f['load_s']:.1f} s",
        f"  a block of {BLOCK}: get {f['get_ms']:.1f} ms, put {f['put_ms']:.1f} ms,"
        f" both {f['block_ms']:.1f} ms when the next block is prefetched",
        f"  peak memory of a shard {f['peak_gb']:.2f} GB, of which {f['own_gb']:.2f} GB are states",
    ]
    return "\n".join(lines)


def measure_store(rows: int, count: int, blocks: int, storage: Path | None) -> dict[str, float]:
    """Initialise, read and write blocks, save, and load into new shards; refuse other states than
    those saved.
    """
    lanes = Lanes.of(rows, BATCH)
    searched = list(_first_blocks(lanes, count, blocks))
    if len(searched) < 4:
        raise Refusal(
            f"rows: {rows} on {count} shards are too few for four blocks; {4 * BLOCK} or more"
            " expected"
        )
    store, figures = _start_shards(lanes, count), {}
    draw = partial(first_states, STATES, LATENT, 0)
    figures["begin_s"] = time_call(store.initialise, draw)
    figures |= _time_blocks(store, searched)
    sample = torch.cat(searched[:count])
    with tempfile.TemporaryDirectory(prefix="distvae-bench-", dir=storage) as folder:
        files, figures["save_s"] = timed_call(store.save, folder, "bench")
        figures |= _gigabytes(store)
        saved = store.get(sample)
        end_shards(store.shards)
        loaded = _start_shards(lanes, count)
        figures["load_s"] = time_call(loaded.load, folder, files)
    if not torch.equal(loaded.get(sample), saved):
        raise Refusal("bench store: other states were loaded than were saved")
    return figures | {"saved_gb": sum(file["bytes"] for file in files) / 1e9}


def _start_shards(lanes: Lanes, count: int) -> ShardedStore:
    """Return empty shards whose processes have started."""
    store = ShardedStore(launch_shards(lanes, count, STATES, words_of(LATENT)))
    store.status()
    return store


def _first_blocks(lanes: Lanes, count: int, blocks: int) -> Iterator[Tensor]:
    """Return the first blocks of an epoch, which are of each shard in turn."""
    schedule = lanes.schedule(0, 0)
    blocks_of_workers = []
    for k in range(count):
        rows = torch.from_numpy(lanes.held(k, count).select(schedule))
        blocks_of_workers.append(rows.split(BLOCK))
    turns = chain.from_iterable(zip(*blocks_of_workers, strict=False))
    return islice(turns, blocks)


def _time_blocks(store: ShardedStore, blocks: list[Tensor]) -> dict[str, float]:
    """Return milliseconds of a block: first each call alone, then overlapping as in training."""
    half = len(blocks) // 2
    gets, puts = zip(*(_get_then_put(store, rows) for rows in blocks[:half]), strict=True)
    both = [time_call(_overlapping, store, *pair) for pair in pairwise(blocks[half - 1 :])]
    store.drain()
    seconds = {"get": gets, "put": puts, "block": both}
    return {f"{name}_ms": 1e3 * median(times) for name, times in seconds.items()}


def _get_then_put(store: ShardedStore, rows: Tensor) -> tuple[float, float]:
    """Return the seconds of a get and of a put."""
    words, get_seconds = timed_call(store.get, rows)

    def put() -> None:
        store.put(rows, ~words)
        store.drain()

    return get_seconds, time_call(put)


def _overlapping(store: ShardedStore, rows: Tensor, following: Tensor) -> None:
    """Read and write a block while the next one is prefetched."""
    store.prefetch(following)
    store.put(rows, ~store.get(rows))


def _gigabytes(store: ShardedStore) -> dict[str, float]:
    """Return the size of all states, and of the largest shard's states and process."""
    status = store.status()
    return {
        "held_gb": sum(shard["bytes"] for shard in status) / 1e9,
        "own_gb": max(shard["bytes"] for shard in status) / 1e9,
        "peak_gb": max(shard["memory"] for shard in status) / 1e9,
    }
