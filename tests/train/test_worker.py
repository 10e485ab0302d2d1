"""Several workers train as one does: under torchrun, under Ray, and when some of them are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distvae.refusal import Refusal
from distvae.train.run import read_epochs, read_records
from distvae.train.worker import EVENTS, Group

OWN = {"rows_per_second", "seconds", "shard_restarts", "distinct_states"}
"""What is of the process, not of the training; of distinct states a sample of each worker's rows is counted."""

PLAIN = [sys.executable, "-m", "distvae"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "distvae"]
SPEECH = ["speech-sdm", "data.path=built-in speech", "model.latent=4", "train.warmup=3", "train.epochs=1"]
BARS = ["bars", "data.rows=200", "train.epochs=4"]


def command(start: list[str], recipe: list[str], out: Path, *options: str) -> list[str]:
    return [*start, "train", *recipe, "--no-track", "--no-evaluate", "--quiet", "--out", str(out), *options]


def run(start: list[str], recipe: list[str], out: Path, *options: str) -> list[dict[str, float]]:
    """The epochs of a training by the command line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(start, recipe, out, *options)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return read_epochs(out)


def same(one: list[dict[str, float]], other: list[dict[str, float]], tolerance: float = 1e-3) -> None:
    """The same numbers, but perhaps for the order in which they were added up."""
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        for name in a.keys() - OWN:
            if not name.endswith("_seconds"):
                assert b[name] == pytest.approx(a[name], rel=tolerance, abs=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [BARS, SPEECH], ids=["populations", "encoder"])
def test_two_workers_equal_one(recipe: list[str], tmp_path: Path) -> None:
    same(run(PLAIN, recipe, tmp_path / "one"), run(TORCHRUN, recipe, tmp_path / "two"))


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_training_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("processes are found by /proc, which this system has not")
    recipe = ["bars", "data.rows=400", "train.epochs=60"]
    whole, out = run(TORCHRUN, recipe, tmp_path / "one"), tmp_path / "two"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(PLAIN, recipe, out, "--workers", "2")
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as driver:
        while len(read_epochs(out)) < 3:
            assert driver.poll() is None, driver.communicate()[1]
            time.sleep(0.02)
        workers = [pid for pid in _train_workers() if driver.pid in _ancestors(pid)]
        os.kill(workers[0], signal.SIGKILL)
        _, err = driver.communicate(timeout=400)
    assert driver.returncode == 0, err
    began = read_records(out, EVENTS)
    assert [event["workers"] for event in began] == [2, 2]
    assert 0 < began[1]["epoch"] < 60
    same(whole, read_epochs(out), 0.0)  # bit for bit: as many workers, added up in the same order


def _train_workers() -> list[int]:
    """The processes of Ray Train's workers, whoever started them."""
    lines = {int(file.parent.name): _text(file) for file in Path("/proc").glob("[0-9]*/cmdline")}
    return [pid for pid, line in lines.items() if line.startswith("ray::RayTrainWorker")]


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        status = dict(line.split(":", 1) for line in _text(Path(f"/proc/{pid}/status")).splitlines() if ":" in line)
        pid = int(status.get("PPid", "0"))
        found.add(pid)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process has just ended
        return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    {
        ("train.batch=33", "--workers", "2"): "33 can be shared by 1 workers at most",
        ("--workers", "32"): "32 workers need 32 CPUs, and Ray has",
        ("estep.mapped=nowhere", "--workers", "1"): "estep.mapped: nowhere",
    }.items(),
)
def test_what_cannot_be_done_is_said_once_with_exit_code_two(words: list[str], told: str, tmp_path: Path) -> None:
    start = command(PLAIN, BARS, tmp_path / "run", *words)
    done = subprocess.run(start, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["two", "0:2", "3:1", "1:2:3", "-1", ""])
def test_a_number_of_workers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="--workers"):
        Group.parse(text)


def test_a_range_of_workers_has_two_ends() -> None:
    assert (Group.parse("3").least, Group.parse("3").most) == (3, 3)
    assert (Group.parse("1:4").least, Group.parse("1:4").most) == (1, 4)
