"""On a system without Linux's features, the same commands train to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.commands import PLAIN, TORCHRUN, command

pytestmark = pytest.mark.slow

WITHOUT_LINUX = """
import os
from pathlib import Path
for means in ("memfd_create", "pidfd_open", "posix_fallocate", "sched_getaffinity"):
    delattr(os, means)
from distvae import system
system.PROC = system.CGROUP = Path("/no/such/folder")
"""
"""Python runs this in every process, before anything else."""
ASK = """
from distvae.system import available_cores, processor_kind, available_memory, peak_memory
import os
assert available_cores() == os.cpu_count()
assert available_memory() > 2**28 and peak_memory() > 2**20
assert processor_kind()
"""
RECIPE = ["bars", "train.epochs=4", "train.schedule=constant", "train.products=blas"]
"""`auto` goes by the kind of the processor, which only Linux tells."""


@pytest.fixture
def without_linux(tmp_path: Path) -> dict[str, str]:
    """The environment of processes on such a system."""
    (tmp_path / "means").mkdir()
    (tmp_path / "means" / "sitecustomize.py").write_text(WITHOUT_LINUX)
    own = str(Path(__file__).parents[2])
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "means"), own])}


def run(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_the_system_does_not_tell_has_a_fallback(without_linux: dict[str, str]) -> None:
    run([sys.executable, "-c", ASK], without_linux)


@pytest.mark.parametrize(
    "start", [PLAIN, pytest.param(TORCHRUN, marks=pytest.mark.long)], ids=["one", "two"]
)
def test_training_ends_with_the_same_bits(
    start: list[str], without_linux: dict[str, str], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    recipe = [*RECIPE, f"estep.mapped={tmp_path}"]
    run(command(start, recipe, here), {})
    run(command(start, [*recipe, "train.epochs=2"], there), without_linux)
    run(command(start, recipe, there, "--resume"), without_linux)
    ended, other = (json.loads((run / "last.json").read_text()) for run in (here, there))
    assert ended["sha256"] == other["sha256"]
