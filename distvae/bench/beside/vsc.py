"""Drive the released code of the reproduction of VSC: its own step, on ready batches."""

import inspect
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from distvae.bench.beside.shape import BATCH, HIDDEN, LATENT, RATE, SIDE, random_batches
from distvae.bench.beside.turns import Trained, Turn

ALPHA = 0.5
UNUSED = ("tensorflow", "torchvision", "torchvision.utils", "scipy", "scipy.misc")
"""Modules that the release imports for logs and pictures; a training step uses none of them."""


class Steps(Protocol):
    """The methods of the release's model that are used here."""

    def step(self, data: Tensor, train: bool) -> float:
        """Take a step on a batch, and return its loss."""


def start(threads: int, steps: int) -> Turn:
    """Return the training of turns of so many steps."""
    torch.set_num_threads(threads)
    model, batches = new_model(), random_batches()

    def turn(number: int) -> Trained:
        for step in range(steps):
            model.step(batches[step % len(batches)], train=True)
        return Trained(steps * BATCH)

    return turn


@contextmanager
def standing_in(modules: Iterable[str]) -> Iterator[None]:
    """Let empty modules stand for those that are not installed, while others import them."""
    empty = []
    for name in modules:
        parent = name.partition(".")[0]
        if parent in empty or find_spec(name) is None:
            empty.append(name)
            sys.modules[name] = Absent(name)
    try:
        yield
    finally:
        for name in empty:
            del sys.modules[name]


class Absent(ModuleType):
    """An empty module, from which any name can be imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def new_model() -> Steps:
    """Return the release's model of our widths.

    The step of its newest commit tells the loss whether it trains, which only the losses of its
    convolutional models take. It is left out where the loss does not.
    """
    with standing_in(UNUSED):
        module = import_module("src.models.vsc")
    model = module.VariationalSparseCoding(
        dataset="random",
        width=SIDE,
        height=SIDE,
        channels=1,
        hidden_sz=HIDDEN,
        latent_sz=LATENT,
        learning_rate=RATE,
        alpha=ALPHA,
        device=torch.device("cpu"),
        log_interval=1,
        normalize=False,
        flatten=True,
    )
    loss = model.loss_function
    if "train" not in inspect.signature(loss).parameters:
        model.loss_function = lambda *parts, train=True: loss(*parts)
    steps: Steps = model
    return steps
