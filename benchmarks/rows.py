"""Measure how an ingest, and training on its rows, grow with the number of rows.

The table has N rows of some values. A TVAE (64-64-values, S = 16) trains on some blocks of 1024
rows, not on an epoch.
"""

import resource
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.output import keep, parser_of, show
from distvae.config import RowsData, from_dict
from distvae.data import open_dataset
from distvae.system import peak_memory
from distvae.train.loop import Interrupted
from distvae.train.session import fit

TOGETHER = 2**16
"""Number of rows generated at a time."""
CAUSES = 16
"""Number of directions in which rows vary, besides noise."""
BLOCK = 1024


def make_table(rows: int, values: int, path: Path) -> None:
    """Write rows that vary in a few directions, with noise."""
    directions = np.random.default_rng(0).normal(size=(CAUSES, values)).astype(np.float32)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, values))
    for first in range(0, rows, TOGETHER):
        chance = np.random.default_rng([1, first])
        part = table[first : first + TOGETHER]
        active = (chance.random((len(part), CAUSES)) < 0.2).astype(np.float32)
        part[:] = active @ directions + 0.1 * chance.random(part.shape, np.float32)
    table.flush()


def measure_ingest(source: Path, rows: Path) -> dict[str, float]:
    """Ingest a table; return the seconds and the peak memory of the process."""
    began, before = time.perf_counter(), _children_seconds()
    words = [sys.executable, "-m", "distvae", "ingest", str(source), str(rows), "--quiet"]
    subprocess.run(words, check=True)
    return {
        "ingest_s": time.perf_counter() - began,
        "ingest_processor_s": _children_seconds() - before,
        "ingest_peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
    }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_training(data: Path, run: Path, blocks: int) -> dict[str, float]:
    """Train on one block and then on more blocks. Time the first block, and the rows after it."""
    search = {"kind": "evolution", "states": 16, "parents": 2, "children": 2, "block": BLOCK}
    config = from_dict(
        {
            "data": {"kind": "rows", "path": str(data)},
            "model": {"kind": "tvae", "latent": 64, "hidden": [64]},
            "estep": {**search, "first": "common"},
            "train": {"epochs": 1000, "batch": 64, "device": "cpu", "threads": 1},
        }
    )
    began, marks = time.perf_counter(), list[tuple[float, float]]()

    def stop() -> bool:
        """Note the time at the end of a block."""
        marks.append((time.perf_counter(), time.process_time()))
        return len(marks) > blocks + 1

    with suppress(Interrupted):
        for _ in fit(config, open_dataset(RowsData(path=str(data)), quiet=True), run, stop=stop):
            pass
    (first, processor), (last, processor_last) = marks[1], marks[-1]
    rows = BLOCK * (len(marks) - 2)
    return {
        "first_block_s": first - began,
        "row_ms": 1e3 * (last - first) / rows,
        "row_processor_ms": 1e3 * (processor_last - processor) / rows,
        "training_peak_gb": peak_memory() / 1e9,
    }


def main() -> None:
    """Run as a program."""
    parser = parser_of("rows", __doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table")
    parser.add_argument("--values", type=int, default=144, help="values of a row")
    parser.add_argument("--blocks", type=int, default=8, help="blocks to train on after the first")
    parser.add_argument("--folder", type=Path, help="a disk with room for three times the table")
    parsed = parser.parse_args()
    with TemporaryDirectory(prefix="distvae-bench-", dir=parsed.folder) as name:
        source, rows, run = (Path(name) / part for part in ("source.npy", "rows", "run"))
        make_table(parsed.rows, parsed.values, source)
        figures = measure_ingest(source, rows)
        source.unlink()
        # A new process, so that the peak memory is of the training alone.
        with get_context("spawn").Pool(1) as pool:
            figures |= pool.apply(measure_training, (rows, run, parsed.blocks))
    settings = {name: getattr(parsed, name) for name in ("rows", "values", "blocks")}
    text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    show(parsed, {**settings, **figures}, f"{parsed.rows:,} rows of {parsed.values}: {text}")
    keep(parsed, f"rows-{parsed.rows}", figures, settings)


if __name__ == "__main__":
    main()
