"""Time how long TVAE takes to restore a noisy picture to a given quality, ours and a peer's.

Ours is the preset `fast`, which restores the picture after each epoch. The peer trains the
published net for windows of 8x8 with the learning rates of its own example, from the first
parameters and states of ours. Its restored picture is computed for the score alone and not timed.
They take turns of one epoch until both have the quality or no epochs are left.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.bench.beside import tvo
from distvae.bench.beside.output import SECTION
from distvae.bench.beside.peers import Imported, recognise
from distvae.bench.beside.turns import SCORE, Seat, Timed, Trained, Turn
from distvae.bench.beside.tvae import write_state
from distvae.bench.output import Output
from distvae.bench.tvae import CASES, new_trainer, noisy_patches
from distvae.config.recipes import load
from distvae.data.signals import PEAK, read_signal
from distvae.data.windows.patches import Grid
from distvae.numerics.array_types import Doubles
from distvae.tasks.fidelity import psnr
from distvae.tasks.restoration import Restoration

CASE = CASES["small"]
RECIPE = "picture-fast"


class Goal(NamedTuple):
    """The quality to reach, and what it may take."""

    psnr: float
    peer_epochs: int
    """The most epochs of the peer; ours has those of its recipe."""
    threads: int


def clean_picture(picture: Path) -> Doubles:
    """Return the grey levels of a picture, (height, width, 1)."""
    grey: Doubles = read_signal(picture).values.astype(np.float64).mean(-1)
    return grey[..., None]


def noisy_picture(clean: Doubles) -> Doubles:
    """Return the picture that `noisy_patches` takes its patches from, in grey levels."""
    noise = np.random.default_rng(0).normal(0, CASE.sigma, clean.shape[:2])
    return clean + noise[..., None]


def score_patches(picture: Path, rows: NDArray[np.float32]) -> float:
    """Return the PSNR of the picture that restored patches, which are standardised, make."""
    clean = clean_picture(picture)
    noisy, side = noisy_picture(clean), int(CASE.widths[-1] ** 0.5)
    merged = Grid(clean.shape, (side, side)).merge(rows, np.ones((side, side)))
    return psnr(clean, merged * noisy.std() + noisy.mean(), PEAK)


def start_ours(picture: Path, threads: int) -> Turn:
    """Return the training of the preset, after a short one that is not timed."""
    torch.set_num_threads(threads)
    clean = clean_picture(picture)
    config = load(RECIPE, {"train.stop_at_noise": False})  # the goal alone ends it
    restoration = Restoration(config, noisy_picture(clean))
    restoration.seconds_per_epoch()
    stages = restoration.run()

    def turn(number: int) -> Trained:
        if number == SCORE:
            return Trained(0, psnr(clean, restoration.restored(), PEAK))
        next(stages)
        return Trained(len(restoration.patches.rows))

    return turn


class TakesTurns(Protocol):
    """A training in a process of its own."""

    def take_turn(self, number: int) -> Timed:
        """Take a turn, and return how long it took."""


@dataclass
class Runner:
    """A training on its way to the goal."""

    seat: TakesTurns
    most: int
    """Epochs that it may take."""
    epochs: int = 0
    cpu: float = 0.0
    """Processor seconds of its epochs."""
    wall: float = 0.0
    psnr: float = 0.0

    def run_epoch(self) -> None:
        """Train an epoch, and score the picture."""
        timed = self.seat.take_turn(self.epochs)
        self.epochs += 1
        self.cpu += timed.cpu
        self.wall += timed.wall
        self.psnr = self.seat.take_turn(SCORE).bound

    def figures(self, name: str) -> dict[str, float]:
        """Return what it took."""
        found = {"s": self.cpu, "wall_s": self.wall, "epochs": self.epochs, "psnr": self.psnr}
        return {f"{name}_{figure}": value for figure, value in found.items()}


def race(ours: Runner, peer: Runner, goal: float) -> dict[str, float]:
    """Train both until they have the quality, or have no epochs left; return what it took."""
    runners = (ours, peer)
    while behind := [r for r in runners if r.psnr < goal and r.epochs < r.most]:
        for runner in behind:
            runner.run_epoch()
    figures = ours.figures("ours") | peer.figures("peer")
    return figures | {"speedup": peer.cpu / ours.cpu, "wall_speedup": peer.wall / ours.wall}


def bench_reach(checkout: Path, picture: Path, goal: Goal, output: Output) -> None:
    """Time both from nothing to the goal."""
    found = recognise(checkout, "tvae")
    with TemporaryDirectory(prefix="distvae-bench-") as folder, ExitStack() as stack:
        file = Path(folder) / "state.safetensors"
        write_state(new_trainer(CASE, noisy_patches(CASE, picture), 1), file)
        begin = partial(
            tvo.start_restoring, CASE, goal.threads, file, partial(score_patches, picture)
        )
        ours = stack.enter_context(Seat(partial(start_ours, picture, goal.threads)))
        peer = stack.enter_context(Seat(Imported(found, checkout, begin)))
        figures = race(
            Runner(ours, load(RECIPE).train.epochs), Runner(peer, goal.peer_epochs), goal.psnr
        )
    settings: dict[str, int | str] = {
        "psnr": f"{goal.psnr:g}",
        "threads": goal.threads,
        "picture": picture.name,
    }
    version = found.version(checkout)
    record: dict[str, int | float | str] = {"case": "reach", "peer": version}
    record |= settings
    record |= figures
    output.show(record, describe_reach(found.name, goal, figures))
    facts = {"section": SECTION, "peer": version}
    output.keep(f"reach-{goal.psnr:g}-beside-{found.name}", figures, settings, facts)


def describe_reach(peer: str, goal: Goal, f: dict[str, float]) -> str:
    """Return the figures in words."""
    lines = [f"{goal.psnr:g} dB under noise of {CASE.sigma:g}, processor seconds:"]
    for name, title in (("ours", "ours"), ("peer", peer)):
        end = "" if f[f"{name}_psnr"] >= goal.psnr else ", which is not enough"
        lines.append(
            f"  {title}: {f[f'{name}_s']:.1f} s, {f[f'{name}_epochs']:.0f} epochs,"
            f" {f[f'{name}_psnr']:.2f} dB{end}"
        )
    least = "" if f["peer_psnr"] >= goal.psnr else "at least "
    return "\n".join([*lines, f"  {least}{f['speedup']:.0f} times as fast"])
