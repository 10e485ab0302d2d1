"""Populations of many rows in shards on this machine: what beginning, a block, a snapshot and a
restart take.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from distvae.bench.row import keep_row
from distvae.estep.truncated import first_states
from distvae.files.refusal import Refusal
from distvae.machines.ray_session import ray_session
from distvae.machines.shards import ShardedStore, end_shards, launch_shards
from distvae.models.population import words_of
from distvae.numerics.lanes import Lanes

STATES, LATENT = 64, 512
BATCH, BLOCK = 1024, 1024


def report(
    rows: int, shards: int, blocks: int, as_json: bool, keep: Path | None, folder: Path | None
) -> None:
    """Print what each part takes, and keep it where wanted."""
    how = {"rows": rows, "shards": shards, "blocks": blocks, "states": STATES, "latent": LATENT}
    with ray_session(None, 1):
        figures = measure(rows, shards, blocks, folder)
    print(json.dumps(how | figures) if as_json else _told(how, figures), flush=True)
    if keep:
        keep_row(keep, f"store-{rows}", figures, how)


def _told(how: dict[str, int], f: dict[str, float]) -> str:
    return (
        f"{how['rows']:,} rows of {how['states']} states of {how['latent']} bits on {how['shards']}"
        f" shards: {f['held_gb']:.2f} GB\n  first states drawn in {f['begin_s']:.1f} s; snapshot"
        f" {f['save_s']:.1f} s ({f['saved_gb']:.2f} GB); restored in {f['load_s']:.1f} s\n  a block"
        f" of {BLOCK}: get {f['get_ms']:.1f} ms, put {f['put_ms']:.1f} ms, both {f['block_ms']:.1f}"
        f" ms with the next brought ahead\n  peak memory of a shard {f['peak_gb']:.2f} GB, of which"
        f" {f['own_gb']:.2f} GB are states"
    )


def measure(rows: int, count: int, blocks: int, folder: Path | None) -> dict[str, float]:
    """Begin, visit blocks, save, and load into new shards; what comes back is compared with what
    was put.
    """
    lanes = Lanes.of(rows, BATCH)
    visited = list(_blocks(lanes, count, blocks))
    if len(visited) < 4:
        raise Refusal(
            f"rows: {rows} on {count} shards are too few for four blocks; {4 * BLOCK} or more"
            " expected"
        )
    store, figures = _started(lanes, count), {}
    figures["begin_s"] = _seconds(store.initialise, partial(first_states, STATES, LATENT, 0))
    figures |= _visits(store, visited)
    with tempfile.TemporaryDirectory(prefix="distvae-bench-", dir=folder) as place:
        files, figures["save_s"] = _timed(store.save, place, "bench")
        figures |= _held(store)
        kept = store.get(torch.cat(visited[:count]))
        end_shards(store.shards)
        again = _started(lanes, count)
        figures["load_s"] = _seconds(again.load, place, files)
    if not torch.equal(again.get(torch.cat(visited[:count])), kept):
        raise Refusal("bench store: other states came back than were saved")
    return figures | {"saved_gb": sum(file["bytes"] for file in files) / 1e9}


def _started(lanes: Lanes, count: int) -> ShardedStore:
    """Empty shards whose processes are up."""
    store = ShardedStore(launch_shards(lanes, count, STATES, words_of(LATENT)))
    store.status()
    return store


def _blocks(lanes: Lanes, count: int, blocks: int) -> Iterator[Tensor]:
    """The first blocks of an epoch, one worker's after the other's, each from a shard of its
    own.
    """
    schedule = lanes.schedule(0, 0)
    parts = [
        torch.from_numpy(lanes.held(k, count).select(schedule)).split(BLOCK) for k in range(count)
    ]
    turns = chain.from_iterable(zip(*parts, strict=False))
    return (rows for _, rows in zip(range(blocks), turns, strict=False))


def _visits(store: ShardedStore, blocks: list[Tensor]) -> dict[str, float]:
    """Milliseconds of a block: each call answered before the next, and then as training has it."""
    half = len(blocks) // 2
    gets, puts = zip(*(_in_turn(store, rows) for rows in blocks[:half]), strict=True)
    both = [_seconds(_ahead, store, *pair) for pair in pairwise(blocks[half - 1 :])]
    store.drain()
    return {
        f"{name}_ms": 1e3 * median(times)
        for name, times in (("get", gets), ("put", puts), ("block", both))
    }


def _in_turn(store: ShardedStore, rows: Tensor) -> tuple[float, float]:
    """Seconds of a get and of a put."""
    words, took = _timed(store.get, rows)
    began = time.perf_counter()
    store.put(rows, ~words)
    store.drain()
    return took, time.perf_counter() - began


def _ahead(store: ShardedStore, rows: Tensor, following: Tensor) -> None:
    """Visit a block while the next is brought and the one before is put away."""
    store.prefetch(following)
    store.put(rows, ~store.get(rows))


def _held(store: ShardedStore) -> dict[str, float]:
    """Gigabytes of all states, and of the largest shard's states and process."""
    told = store.status()
    return {
        "held_gb": sum(state["bytes"] for state in told) / 1e9,
        "own_gb": max(state["bytes"] for state in told) / 1e9,
        "peak_gb": max(state["memory"] for state in told) / 1e9,
    }


def _seconds(function: Callable[..., object], *operands: Any) -> float:
    return _timed(function, *operands)[1]


def _timed(function: Callable[..., Any], *operands: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return function(*operands), time.perf_counter() - began
