"""Time training on two machines beside one process, over a link of any rate and delay.

The machines are network namespaces. All ways go on with copies of trained runs and take turns of
two epochs, of which the second is timed. Some ways have larger batches, with learning rates scaled
by the root; others average parameters every so many steps. Bytes are those that a machine sends,
packets' heads included.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from distvae.bench.namespaces import Link, Machine, two_machines
from distvae.bench.output import Output
from distvae.bench.paused import EPOCHS_OF_TURN, PausedTraining, take_turn
from distvae.bench.timing import spread
from distvae.bench.tvae import BATCH, SIZES
from distvae.bench.workers import (
    PYTHON_MODULE,
    SPEECH,
    Extent,
    subjects,
    train_run,
    with_batch,
    write_rows,
)
from distvae.config import Config
from distvae.files.refusal import Refusal


class Way(NamedTuple):
    """A way of training."""

    factor: int = 1
    """How many times as large as the recipe's own the batch is."""
    local_steps: int = 0
    """Steps between averages of parameters; 0 sums gradients at each step."""
    alone: bool = False
    """Whether one process trains, without the link."""

    @property
    def run(self) -> str:
        """Return the name of the trained run that it goes on with."""
        return f"run-{self.factor}-{self.local_steps}"

    def config(self, base: Config) -> Config:
        """Return its configuration."""
        return with_batch(base, self.factor).with_("train", local_steps=self.local_steps)


WAYS = {
    "alone": Way(alone=True),
    "alone_x4": Way(4, alone=True),
    "alone_x16": Way(16, alone=True),
    "sum": Way(),
    "x4": Way(4),
    "x16": Way(16),
    "local_16": Way(local_steps=16),
    "local_64": Way(local_steps=64),
    "local_256": Way(local_steps=256),
}
CASES = {**dict.fromkeys(SIZES, BATCH), SPEECH: 128}
"""The batch of each case's recipe."""
SPARE = 1000
"""Epochs beside those that are timed: short ones go by before a training is stopped."""


class NetworkExtent(NamedTuple):
    """Size of the training and its machines."""

    link: Link
    workers: int
    """Workers on each machine."""
    steps: int
    """Steps of an epoch in batches of the recipe's size."""
    epochs: int
    """Epochs of the runs that all ways resume."""
    turns: int


class NetworkTurn(NamedTuple):
    """An epoch on two machines."""

    wall: float
    """Seconds by the clock on the wall."""
    sent: float
    """Bytes that a machine sends."""


def bench_network(
    cases: Sequence[str], picture: Path | None, extent: NetworkExtent, output: Output
) -> None:
    """Time each way of training over a link, for each size of TVAE and for a speech model."""
    for unknown in {*cases} - {*CASES}:
        raise Refusal(f"{unknown}: no such case; {', '.join(CASES)} expected")
    if extent.workers not in (1, 2, 4, 8):
        raise Refusal(f"--workers {extent.workers}: 1, 2, 4 or 8 expected, to share batches")
    with two_machines(extent.link):
        pass  # refused before anything is trained
    for case in cases or CASES:
        settings = _settings(case, extent)
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            prepare_runs(case, picture, extent, Path(folder))
            figures = measure_network(extent, Path(folder))
        output.show({"case": case, **settings, **figures}, describe_network(case, extent, figures))
        limited = "unlimited" if extent.link == Link() else "limited"
        row = f"network-{case}-{extent.workers}-each-{limited}"
        output.keep(row, figures, settings, {"section": "Two machines"})


def _settings(case: str, extent: NetworkExtent) -> dict[str, int | str]:
    """Return what a row says of a measurement."""
    counts = {"workers": extent.workers, "steps": extent.steps, "turns": extent.turns}
    return {"link": extent.link.name, "batch": CASES[case], "epochs": extent.epochs, **counts}


def prepare_runs(case: str, picture: Path | None, extent: NetworkExtent, folder: Path) -> None:
    """Write rows and a run of each configuration into a folder, and train the runs."""
    batch = CASES[case]
    size = Extent(batch * extent.steps, extent.epochs, extent.turns + SPARE, batch)
    base = write_rows(dict(subjects(picture, size))[case], folder)
    for run, way in {way.run: way for way in WAYS.values()}.items():
        train_run(way.config(base), extent.epochs, folder / run)


def measure_network(extent: NetworkExtent, folder: Path) -> dict[str, float]:
    """Return figures of each way over several turns, and ratios within turns."""
    with two_machines(extent.link) as machines, ExitStack() as stack:
        trainings = {}
        for name, way in WAYS.items():
            trainings[name] = training = _training(name, way, folder, (machines, extent.workers))
            stack.callback(training.end)
            training.start()
        turns: dict[str, list[NetworkTurn]] = {name: [] for name in WAYS}
        for _ in range(extent.turns):
            for name, training in trainings.items():
                turns[name].append(_take_turn(training, machines))
    return compare(turns)


def _training(
    name: str, way: Way, folder: Path, place: tuple[tuple[Machine, Machine], int]
) -> PausedTraining:
    """Start a way of training on a copy of its run."""
    run = folder / name
    shutil.copytree(folder / way.run, run)
    train = ["train", str(run / "config.yaml"), "--resume", "--out", str(run)]
    words = [*PYTHON_MODULE, *train, "--quiet", "--no-track", "--no-evaluate"]
    if way.alone:
        return PausedTraining(run, [sys.executable, *words])
    machines, workers = place
    training = list(WAYS).index(name)
    return PausedTraining(
        run, *(m.command([*m.torchrun(workers, training), *words]) for m in machines)
    )


def _take_turn(training: PausedTraining, machines: tuple[Machine, Machine]) -> NetworkTurn:
    before = [machine.sent_bytes() for machine in machines]
    turn = take_turn([training])
    after = [machine.sent_bytes() for machine in machines]
    return NetworkTurn(turn.wall, (fmean(after) - fmean(before)) / EPOCHS_OF_TURN)


def compare(turns: Mapping[str, Sequence[NetworkTurn]]) -> dict[str, float]:
    """Return the figures of all ways, and medians of ratios to one process in the same turn."""
    figures: dict[str, float] = {}
    for name, taken in turns.items():
        walls = [turn.wall for turn in taken]
        figures |= spread({f"{name}_s": walls})
        figures[f"{name}_mb"] = median(turn.sent for turn in taken) / 1e6
        figures[f"{name}_gain"] = median(
            one.wall / turn.wall for one, turn in zip(turns["alone"], taken, strict=True)
        )
    return figures


def describe_network(case: str, extent: NetworkExtent, f: Mapping[str, float]) -> str:
    """Return the figures in words."""
    lines = [
        f"{case}, two machines with {extent.workers} workers each, {extent.link.name}: seconds of"
        " an epoch (least to most), MB that a machine sends, speed relative to one process"
    ]
    for name in WAYS:
        wall = f"{f[f'{name}_s']:7.2f} ({f[f'{name}_s_min']:.2f} to {f[f'{name}_s_max']:.2f})"
        lines.append(f"  {name:10} {wall:26} {f[f'{name}_mb']:8.1f} MB  {f[f'{name}_gain']:.2f}")
    return "\n".join(lines)
