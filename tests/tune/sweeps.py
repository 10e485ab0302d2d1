"""Sweeps in processes of their own, on a few small images."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

TREE = {
    "base": "mnist-vae",
    "fixed": {
        "train.epochs": 2,
        "train.batch": 16,
        "model.hidden": [8],
        "estep.hidden": [8],
        "train.device": "cpu",
    },
    "metrics": {"squared_error": "min", "hoyer": "max"},
    "trials": 4,
    "concurrent": 2,
    "axes": [
        {"key": "model.kind", "choice": ["vae", "vsc", "sdm"]},
        {"key": "model.latent", "choice": [2, 4]},
        {"key": "train.rate", "choice": [1e30], "when": {"model.kind": "vsc"}},
    ],
}


STEADY_TRIALS = 3
STEADY = TREE | {
    "search": "random",
    "trials": STEADY_TRIALS,
    "axes": [
        {"key": "model.latent", "int": [2, 6]},
        {"key": "train.rate", "float": [1e-4, 1e-2], "log": True},
        {"key": "train.warmup", "choice": [0, 5]},
    ],
}

PROGRAM = """
import sys
from pathlib import Path
from distvae.tune.validation import load_space
from distvae.tune.sweep import SweepOptions, run_sweep
file, images, out, *pairs = sys.argv[1:]
given = dict(pair.split("=") for pair in pairs if "=" in pair)
given = {key: int(value) for key, value in given.items()}
go_on = "--resume" in pairs
root = Path(out).parent
found = run_sweep(
    load_space(file),
    Path(out),
    SweepOptions(
        given,
        images,
        force=not go_on,
        resume=go_on,
        root=root,
        keep_tune="--keep-tune" in pairs,
    ),
)
sys.exit(found.exit_code)
"""


class Sweep:
    """A sweep in a process, found again by a mark in the environment of all that it starts."""

    def __init__(self, *arguments: str) -> None:
        self.mark = f"DISTVAE_TEST={uuid.uuid4()}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=os.environ | dict([self.mark.split("=")]) | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, pattern: str, out: Path, count: int = 1) -> None:
        """Wait until its folder has `count` files of a pattern."""
        while len(list(out.glob(pattern))) < count:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill its process, but no process that it has started."""
        self.process.kill()
        self.process.communicate(timeout=100)

    def finish(self) -> str:
        """Wait for its end without a failure, and return its messages."""
        said = self.process.communicate(timeout=300)[1]
        assert self.process.returncode == 0, said
        assert self.ends_alone()
        return said

    def interrupt(self) -> str:
        """Press Ctrl-C, and return its messages until its end."""
        os.killpg(self.process.pid, signal.SIGINT)
        said = self.process.communicate(timeout=120)[1]
        assert self.process.returncode == 130, said
        assert self.ends_alone()
        assert "Traceback" not in said
        return said

    def left(self) -> list[str]:
        """The processes that outlived it."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text())
            except OSError:
                continue
        return found

    def ends_alone(self) -> bool:
        """Whether nothing outlives it by more than some seconds."""
        patience = time.monotonic() + 20
        while self.left() and time.monotonic() < patience:
            time.sleep(0.2)
        return not self.left()


def study_states(out: Path) -> list[str]:
    """What the sampler was told of its trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with opened_study(f"sqlite:///{out / 'optuna.db'}") as study:
        return [trial.state.name for trial in study.get_trials()]


@contextmanager
def opened_study(address: str) -> Iterator[optuna.Study]:
    """Optuna's own view of a sweep's file."""
    storage = optuna.storages.RDBStorage(address)
    try:
        yield optuna.load_study(study_name="sweep", storage=storage)
    finally:
        storage.engine.dispose()


def figures(out: Path) -> dict[int, Any]:
    """What every trial of a sweep tried, and what came of it."""
    trials = json.loads((out / "results.json").read_text())["trials"]
    assert len({trial["number"] for trial in trials}) == len(trials)
    return {trial["number"]: (trial["values"], trial["figures"]) for trial in trials}


def assert_whole(out: Path, whole: dict[int, Any]) -> None:
    """Each trial has finished, with its forty epochs once and with known figures."""
    assert study_states(out) == ["COMPLETE"] * STEADY_TRIALS
    found = figures(out)
    assert set(found) == set(whole)
    for trial, known in whole.items():
        assert found[trial] == known, f"trial {trial} of {out}"
    for trial in range(1, STEADY_TRIALS + 1):
        epochs = (out / "trials" / str(trial) / "epochs.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in epochs] == list(range(1, 41))


def assert_others_go_on(
    steady: tuple[list[str], dict[int, Any]],
    out: Path,
    processes: Callable[[Sweep], list[int]],
    *options: str,
) -> None:
    """Kill the processes in which a sweep trains. Others take their trials to the known end."""
    words, whole = steady
    running = Sweep(*words, str(out), "train.epochs=40", *options)
    running.wait_for("trials/*/last.json", out)
    killed = processes(running)
    assert killed
    for process in killed:
        os.kill(process, signal.SIGKILL)
    assert "; another continues it" in running.finish()
    assert_whole(out, whole)
