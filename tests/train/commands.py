"""Train with the command line, and read the files of the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.train.run_folder import read_epochs

OWN = {"rows_per_second", "distinct_states"}
"""What is of the process, not of the training; of distinct states a sample of each worker's rows is
counted.
"""
PACE = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""A report takes at least as many seconds, and with it an epoch, if each is reported."""
PLAIN = [sys.executable, "-m", "distvae"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "distvae"),
]


def command(start: list[str], recipe: list[str], out: Path, *options: str) -> list[str]:
    quietly = ["--no-track", "--no-evaluate", "--quiet", "--out", str(out)]
    return [*start, "train", *recipe, *quietly, *options]


def run(start: list[str], recipe: list[str], out: Path, *options: str) -> list[dict[str, float]]:
    """Train, and return the records of the epochs."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(start, recipe, out, *options)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return read_epochs(out)


def same(
    one: list[dict[str, float]], other: list[dict[str, float]], tolerance: float = 1e-3
) -> None:
    """Check that numbers are equal up to the order of summation."""
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        for name in a.keys() - OWN:
            if not name.endswith("seconds"):
                assert b[name] == pytest.approx(a[name], rel=tolerance, abs=tolerance), name


def bits(out: Path) -> list[str]:
    """Return checksums of the tensors and populations that a training ends with."""
    best, last = (json.loads((out / name).read_text()) for name in ("best.json", "last.json"))
    kept = [file["sha256"] for file in last["facts"]["populations"]]
    return [best["sha256"], last["sha256"], *kept]
