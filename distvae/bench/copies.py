"""Time the copy of a worker in a keeper on this machine: filling it, a block, a point, reading it
back.
"""

from collections.abc import Iterator
from statistics import median

import numpy as np

from distvae.bench.output import Output
from distvae.bench.timing import time_call, timed_call
from distvae.estep.store import parts_of
from distvae.machines.copies.keeper import Extent, Places, Words, WorkerState
from distvae.machines.copies.keepers import SENT_BYTES, launch_keepers, machines_in_turn
from distvae.machines.copies.sent_copy import answer
from distvae.machines.ray_api import ActorHandle
from distvae.machines.session.ray_session import ray_session
from distvae.models.population import words_of

STATES, LATENT = 64, 512
BLOCK = 1024
PARAMETERS = 336_528
"""Numbers of 512-512-144, each with two moments."""
NAME = "bench"


def bench_copies(rows: int, blocks: int, output: Output) -> None:
    """Time the copy of a worker with so many rows."""
    settings = {"rows": rows, "blocks": blocks, "states": STATES, "latent": LATENT}
    memory = 4 * BLOCK * STATES * words_of(LATENT) * 8
    with ray_session(None, 1, memory + 16 * SENT_BYTES) as ray:
        (keeper,) = launch_keepers(machines_in_turn(ray, 1))
        figures = measure_copy(keeper, rows, blocks)
    output.show({**settings, **figures}, describe_copies(settings, figures))
    output.keep(f"copies-{rows}", figures, settings)


def describe_copies(settings: dict[str, int], f: dict[str, float]) -> str:
    """Return the figures in words."""
    lines = [
        f"{settings['rows']:,} rows of {STATES} states of {LATENT} bits: {f['gb']:.2f} GB",
        f"  filled in {f['fill_s']:.1f} s, read back in {f['read_s']:.1f} s",
        f"  a block of {BLOCK}: sent in {f['send_ms']:.1f} ms, held after {f['block_ms']:.1f} ms",
        f"  a point with parameters and moments: held after {f['point_ms']:.1f} ms",
        f"  peak memory of the keeper {f['peak_gb']:.2f} GB",
    ]
    return "\n".join(lines)


def measure_copy(keeper: ActorHandle, rows: int, blocks: int) -> dict[str, float]:
    """Fill a copy, put blocks and points, and read it back."""
    words = np.random.default_rng(0).integers(0, 2**62, (rows, STATES, words_of(LATENT)))
    answer(keeper.begin.remote(NAME, Extent(0, 1, *words.shape)))
    figures = {"gb": words.nbytes / 1e9, "fill_s": time_call(_fill, keeper, words)}
    figures |= _time_blocks(keeper, words, blocks)
    figures["read_s"] = time_call(_read, keeper, words)
    return figures | {"peak_gb": answer(keeper.memory.remote()) / 1e9}


def _messages(words: Words) -> Iterator[slice]:
    """Return the parts of the rows that are sent or read together."""
    return parts_of(len(words), max(1, SENT_BYTES // words[0].nbytes))


def _fill(keeper: ActorHandle, words: Words) -> None:
    for part in _messages(words):
        answer(keeper.put.remote(NAME, part, words[part]))


def _read(keeper: ActorHandle, words: Words) -> None:
    for part in _messages(words):
        answer(keeper.read.remote(NAME, part))


def _time_blocks(keeper: ActorHandle, words: Words, blocks: int) -> dict[str, float]:
    """Return milliseconds until a block is sent, until it is held, and until a point is."""
    chance = np.random.default_rng(1)
    weights = {f"tensor.{k}": np.zeros(PARAMETERS, np.float32) for k in range(3)}
    seconds: dict[str, list[float]] = {"send": [], "block": [], "point": []}
    for number in range(blocks):
        places: Places = chance.choice(len(words), BLOCK, replace=False)
        ref, sending = timed_call(keeper.put.remote, NAME, places, words[places])
        seconds["send"].append(sending)
        seconds["block"].append(sending + time_call(answer, ref))
        state = WorkerState({"epoch": 0, "batch": number}, {}, weights)
        reached, sending = timed_call(keeper.reach.remote, NAME, (0, number), state)
        seconds["point"].append(sending + time_call(answer, reached))
    return {f"{name}_ms": 1e3 * median(times) for name, times in seconds.items()}
