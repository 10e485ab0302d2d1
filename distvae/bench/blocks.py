"""Train a TVAE on ingested rows for a few blocks, in a process of its own.

`python -m distvae.bench.blocks DATA RUN BLOCKS` prints one JSON object.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from distvae.config import RowsData, from_dict
from distvae.data import open_dataset
from distvae.system.processes import bytes_counted
from distvae.train.loop import Interrupted
from distvae.train.session import fit

LATENT, HIDDEN, STATES = 64, 64, 64
BLOCK = 1024


class BlockClock:
    """Asked between blocks whether to stop: after so many, of which the first is not timed."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.times: list[float] = []
        self.read: list[int] = []

    def __call__(self) -> bool:
        """Note the time, and return whether all blocks are over."""
        self.times.append(time.perf_counter())
        self.read.append(bytes_counted().get("read_bytes", 0))
        return len(self.times) > self.blocks + 1


def train_blocks(data: Path, run: Path, blocks: int) -> dict[str, float]:
    """Return the seconds and bytes before training begins, and of its blocks."""
    began, read = time.perf_counter(), bytes_counted().get("read_bytes", 0)
    config = from_dict(
        {
            "data": {"kind": "rows", "path": str(data)},
            "model": {"kind": "tvae", "latent": LATENT, "hidden": [HIDDEN]},
            "estep": {"kind": "evolution", "states": STATES, "block": BLOCK},
            "train": {"epochs": 1, "batch": 32, "device": "cpu", "threads": 1},
        }
    )
    clock = BlockClock(blocks)
    with suppress(Interrupted):
        for _ in fit(config, open_dataset(RowsData(path=str(data)), quiet=True), run, stop=clock):
            pass
    rows = BLOCK * (len(clock.times) - 2)
    return {
        "start_s": clock.times[0] - began,
        "start_disk_read": clock.read[0] - read,
        "block_row_ms": 1e3 * (clock.times[-1] - clock.times[1]) / rows,
        "block_row_disk_read": (clock.read[-1] - clock.read[1]) / rows,
    }


if __name__ == "__main__":
    print(json.dumps(train_blocks(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
