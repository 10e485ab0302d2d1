"""Time training steps of a VAE or of VSC, 784-400-200, beside those of a peer."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from distvae.bench.beside import pythae, vsc
from distvae.bench.beside.output import Contestants, show_contest
from distvae.bench.beside.peers import PYTHAE, VSC, Imported, recognise
from distvae.bench.beside.shape import BATCH, HIDDEN, LATENT
from distvae.bench.beside.turns import Trained, Turn, compare, take_turns, warm_up
from distvae.bench.counting import train_steps
from distvae.bench.output import Output
from distvae.bench.steps import trainer_on_noise
from distvae.config import Config
from distvae.config.recipes import load

ALL_ROWS = 60_000
"""Rows of an epoch of MNIST."""
EPOCHS = 1_000_000
"""Epochs of our configuration: more than are ever trained here."""


@dataclass(frozen=True)
class StepsContest:
    """The length of a contest."""

    steps: int
    """Steps of a turn."""
    threads: int
    turns: int


class PeerCase(NamedTuple):
    """A model that a peer and this program train."""

    name: str
    recipe: str
    """Our recipe of it."""
    start: Callable[[int, int], Turn]
    """Prepares the peer's training, on so many threads, for turns of so many steps."""


CASES = {
    PYTHAE.name: PeerCase("steps-vae", "mnist-vae", pythae.start),
    VSC.name: PeerCase("steps-vsc", "mnist-vsc", vsc.start),
}


def bench_steps_beside(checkout: Path, contest: StepsContest, output: Output) -> None:
    """Time the model of the peer in a folder."""
    peer = recognise(checkout, "steps")
    case = CASES[peer.name]
    ours = partial(warm_up, partial(start_ours, case.recipe, contest.threads, contest.steps))
    begin = partial(case.start, contest.threads, contest.steps)
    theirs = Imported(peer, checkout, partial(warm_up, begin))
    turns = take_turns(ours, theirs, contest.threads, contest.turns)
    figures = compare(turns, ALL_ROWS, contest.threads)
    who = Contestants(case.name, peer.name, peer.version(checkout))
    show_contest(who, figures, asdict(contest), output)


def start_ours(recipe: str, threads: int, steps: int) -> Turn:
    """Return our training of turns of so many steps."""
    torch.set_num_threads(threads)
    trainer = trainer_on_noise(our_config(recipe))

    def turn(number: int) -> Trained:
        taken = 0
        while taken < steps:
            taken += train_steps(trainer, steps - taken)
        return Trained(taken * BATCH)

    return turn


def our_config(recipe: str) -> Config:
    """Return a recipe with the widths that both programs train."""
    widths = {"model.latent": LATENT, "model.hidden": [HIDDEN], "estep.hidden": [HIDDEN]}
    train = {"train.batch": BATCH, "train.epochs": EPOCHS, "train.device": "cpu"}
    return load(recipe, widths | train)
