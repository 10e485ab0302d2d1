"""Sweeps in processes of their own, on a few small images."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from distvae.track import Sending, Store
from distvae.tune.population import open_study
from distvae.tune.recorder import Recorder, SweepDisplay
from distvae.tune.space import Space
from distvae.tune.study import read_trials
from distvae.tune.trial import Trials

TREE: dict[str, Any] = {
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
found = run_sweep(
    load_space(file),
    Path(out),
    SweepOptions(
        given,
        images,
        force="--resume" not in pairs,
        resume="--resume" in pairs,
        root=Path(out).parent,
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

    def finish(self, code: int = 0) -> str:
        """Wait for its end, which nothing outlives by long, and return its messages."""
        said = self.process.communicate(timeout=300)[1]
        assert self.process.returncode == code, said
        patience = time.monotonic() + 20
        while self.left() and time.monotonic() < patience:
            time.sleep(0.2)
        assert not self.left()
        return said

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait for its end."""
        os.killpg(self.process.pid, signal.SIGINT)
        assert "Traceback" not in self.finish(130)

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


def recorder_of(space: Space, out: Path) -> Recorder:
    """What a sweep in a folder records, as after a start of its process."""
    trials, display = Trials(space, out / "trials"), SweepDisplay(space, quiet=True)
    sending = Sending(Store.find(out), out)
    recorder = Recorder(trials, open_study(space, out), display, sending, lambda: False)
    display.take_in(recorder.study.results)
    return recorder


def study_states(out: Path) -> list[str]:
    """What the sampler was told of its trials."""
    return [trial.state.name for trial in read_trials(out)]


def figures(out: Path) -> dict[int, Any]:
    """What every trial of a sweep tried, and what came of it."""
    trials = json.loads((out / "results.json").read_text())["trials"]
    assert len({trial["number"] for trial in trials}) == len(trials)
    return {trial["number"]: (trial["values"], trial["figures"]) for trial in trials}


def assert_whole(out: Path, whole: dict[int, Any]) -> None:
    """Each trial has finished, with its forty epochs once and with known figures."""
    assert study_states(out) == ["COMPLETE"] * STEADY_TRIALS
    assert figures(out) == whole
    for trial in range(1, STEADY_TRIALS + 1):
        epochs = (out / "trials" / str(trial) / "epochs.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in epochs] == list(range(1, 41))
