"""Train a TVAE on ingested rows for a few blocks, as one worker alone or of those of torchrun.

`python -m distvae.bench.blocks DATA RUN BLOCKS` prints one JSON object. With BLOCKS below zero the
last worker is killed in the middle of the block after so many.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from distvae.config import Config, RowsData, from_dict
from distvae.data import open_dataset
from distvae.files.storage import Folder
from distvae.system.processes import bytes_counted
from distvae.train.run_folder import has_saved_state
from distvae.train.session import RunOptions, fit_in_steps
from distvae.train.step import take_steps
from distvae.train.stopping import Interrupted
from distvae.train.team import join_team

LATENT, HIDDEN, STATES = 64, 64, 16
BATCH, BLOCK = 64, 1024


class Mark(NamedTuple):
    """Clocks and counters of this process, read between two blocks."""

    seconds: float
    processor: float
    disk_read: int


def mark() -> Mark:
    """Read them now."""
    return Mark(time.perf_counter(), time.process_time(), bytes_counted().get("read_bytes", 0))


class BlockClock:
    """Asked between blocks whether to stop: after so many, of which the first is not timed."""

    def __init__(self, blocks: int, is_victim: bool) -> None:
        self.blocks, self.ends = abs(blocks), blocks > 0
        """A training that is to be killed does not end before."""
        self.is_victim = is_victim and not self.ends
        self.marks: list[Mark] = []
        self.began = 0.0

    def __call__(self) -> bool:
        """Note the time, and return whether all blocks are over."""
        self.began = self.began or time.time()
        self.marks.append(mark())
        if self.is_victim and len(self.marks) == self.blocks + 1:
            half = (self.marks[-1].seconds - self.marks[-2].seconds) / 2
            threading.Timer(half, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return self.ends and len(self.marks) > self.blocks + 1


def training_config(data: Path) -> Config:
    """Return a training with populations whose first states are the same for all rows."""
    return from_dict(
        {
            "data": {"kind": "rows", "path": str(data)},
            "model": {"kind": "tvae", "latent": LATENT, "hidden": [HIDDEN]},
            "estep": {
                "kind": "evolution",
                "states": STATES,
                "parents": 2,
                "children": 2,
                "block": BLOCK,
                "first": "common",
            },
            "train": {"epochs": 1000, "batch": BATCH, "device": "cpu", "threads": 1},
        }
    )


def train_blocks(data: Path, run: Path, blocks: int) -> dict[str, float]:
    """Begin or resume a run; return what came before training, and what the blocks took."""
    before, team = mark(), join_team()
    config, dataset = training_config(data), open_dataset(RowsData(path=str(data)), quiet=True)
    clock = BlockClock(blocks, team.rank == team.size - 1)
    batches: list[int] = []
    options = RunOptions(
        resume=has_saved_state(Folder(run)),
        stop=clock,
        begun=lambda trainer: batches.append(trainer.position.batch),
    )
    with suppress(Interrupted):
        for _ in take_steps(fit_in_steps(config, dataset, run, options, team=team)):
            pass
    first, start, end = clock.marks[0], clock.marks[1], clock.marks[-1]
    rows = BLOCK * (len(clock.marks) - 2)
    found = {
        "began": clock.began,
        "batch": float(batches[0]),
        "start_disk_read": float(first.disk_read - before.disk_read),
        "block_row_ms": 1e3 * (end.seconds - start.seconds) / rows,
        "block_row_processor_ms": 1e3 * (end.processor - start.processor) / rows,
        "block_row_disk_read": (end.disk_read - start.disk_read) / rows,
    }
    means = {name: sum(team.gather(value)) / team.size for name, value in found.items()}
    means["block_row_processor_ms"] *= team.size
    means["rank"] = float(team.rank)
    team.close()
    return means


if __name__ == "__main__":
    done = train_blocks(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    if not done.pop("rank"):
        print(json.dumps(done))
