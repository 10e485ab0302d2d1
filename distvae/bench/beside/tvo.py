"""Drive tvo, by the authors of TVAE: its own loop over an epoch, on blocks of rows."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from distvae.bench.beside.turns import SCORE, Trained, Turn
from distvae.bench.tvae import BATCH, RATE, HouseCase
from distvae.models.population import unpack

WARM_UP = 64
"""Rows of an E-step that is not timed."""
EXAMPLE_RATES = (1e-4, 1e-2)
"""The ends of the cycle of learning rates in its example of denoising."""
SCORED_ROWS = 1024


class Decodes(Protocol):
    """The methods of `tvo.models.GaussianTVAE` that are used here."""

    def data_estimator(self, rows: Tensor, data: Tensor, states: object) -> Tensor:
        """Return the values (B, D) that rows with these numbers have in expectation."""


class EpochLoop(Protocol):
    """The methods of `tvo.trainer.Trainer` that are used here."""

    train_states: object

    def em_step(self) -> Mapping[str, float]:
        """Train for an epoch. Return the free energy as `train_F`."""

    def e_step(self) -> Mapping[str, float]:
        """Improve the states alone."""


def start(case: HouseCase, threads: int, file: Path, rows: int) -> Turn:
    """Return the training of turns of so many rows, from the state in a file."""
    torch.set_num_threads(threads)
    state = load_file(file)
    model = new_model(state, (RATE, RATE))
    count = len(state["rows"]) // rows * rows
    blocks = torch.arange(count).split(rows)
    loops = [new_loop(case, model, state, block) for block in blocks]
    new_loop(case, model, state, torch.arange(WARM_UP)).e_step()

    def turn(number: int) -> Trained:
        bound = loops[number % len(loops)].em_step()["train_F"]
        return Trained(rows, bound)

    return turn


def start_restoring(
    case: HouseCase, threads: int, file: Path, score: Callable[[NDArray[np.float32]], float]
) -> Turn:
    """Return the training of whole epochs from the state in a file, scored by restored rows."""
    torch.set_num_threads(threads)
    state = load_file(file)
    model, rows = new_model(state, EXAMPLE_RATES), state["rows"]
    loop = new_loop(case, model, state, torch.arange(len(rows)))

    def turn(number: int) -> Trained:
        if number != SCORE:
            return Trained(len(rows), loop.em_step()["train_F"])
        parts = torch.arange(len(rows)).split(SCORED_ROWS)
        states = loop.train_states
        restored = [model.data_estimator(part, rows[part], states) for part in parts]
        return Trained(0, score(torch.cat(restored).numpy()))

    return turn


def new_model(state: Mapping[str, Tensor], rates: tuple[float, float]) -> Decodes:
    """Return tvo's model with the parameters of a state, and the ends of its cycle of rates."""
    layers = sum(name.startswith("weight.") for name in state)
    model: Decodes = import_module("tvo.models").GaussianTVAE(
        W_init=[state[f"weight.{k}"] for k in range(layers)],
        b_init=[state[f"bias.{k}"] for k in range(layers)],
        pi_init=state["pi"],
        sigma2_init=float(state["variance"]),
        precision=torch.float32,
        min_lr=rates[0],
        max_lr=rates[1],
    )
    return model


def new_loop(
    case: HouseCase, model: object, state: Mapping[str, Tensor], rows: Tensor
) -> EpochLoop:
    """Return tvo's loop over some rows, with their kept states."""
    states = import_module("tvo.variational").EVOVariationalStates(
        N=len(rows),
        H=case.widths[0],
        S=case.states,
        precision=torch.float32,
        parent_selection="batch_fitparents",
        mutation="randflip",
        n_parents=case.parents,
        n_children=case.children,
        n_generations=case.generations,
    )
    states.K[:] = unpack(state["words"][rows], case.widths[0])
    data = import_module("tvo.utils.data").TVODataLoader(
        state["rows"][rows], batch_size=BATCH, shuffle=True
    )
    loop: EpochLoop = import_module("tvo.trainer").Trainer(model, data, states)
    return loop
