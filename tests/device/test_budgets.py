"""Device operations of a training step and of the search of a block: a budget for each kind of
model, without copies or waits.

An operation of torch counts as one, although some operations, for example a sort, are several GPU
kernels.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from distvae.train import graphs
from distvae.train.loop import FINITE_EVERY, Trainer
from distvae.train.session import build_trainer
from tests import tiny
from tests.device.cases import CASES
from tests.device.pretended import Counts, Machine, counted
from tests.device.tape import recorder_of

BATCH, BLOCK, ROWS = 16, 64, 416


class Budget(NamedTuple):
    """The most operations."""

    step: int
    visit: int = 0
    look: int = 6
    """Every 64 steps: the sums of these, and whether the objective is finite."""


BUDGETS = {
    "fitness_batch": Budget(step=25, visit=158, look=37),
    "bernoulli": Budget(step=27, visit=158, look=34),
    "vae": Budget(step=30, look=47),
    "vsc": Budget(step=50, look=88),
    "sdm dct": Budget(step=34, look=56),
}
RECORDED = {
    "vae": 8,
    "vsc pseudo": 10,
    "gumbel": 10,
    "convolutions": 9,
    "fitness_batch": 14,
    "bsc, least squares": 16,
}
"""The most operations of steps that are replayed at once: copies of their inputs, the replay, and
one addition for each sum, because torch has no public addition of many tensors at once.
"""


def trainer_of(name: str, graphs_too: bool = False) -> Trainer:
    sections = CASES[name]
    estep = sections.get("estep", {})
    estep = estep | ({"block": BLOCK} if "states" in estep else {})
    train = {"batch": BATCH, "device": "auto", "epochs": 3, "graphs": graphs_too}
    config = tiny.config(**sections | {"train": train, "estep": estep})
    data = tiny.dataset(ROWS)
    if sections["model"].get("likelihood") == "bernoulli":
        splits = {split: rows[:] / (1 + rows[:]) for split, rows in data.splits.items()}
        data = replace(data, splits=splits)
    return build_trainer(config, data)


def recorded(function: Callable[..., Any], found: list[Counts]) -> Callable[..., Any]:
    """Return the same function with its calls recorded in `found`."""

    def call(*arguments: Any) -> Any:
        with counted() as counts:
            result = function(*arguments)
        found.append(counts)
        return result

    return call


class Epoch(NamedTuple):
    """The operations of each step, of each visit of a block, and of each look at the objective."""

    steps: list[Counter[str]]
    visits: list[Counter[str]]
    looks: list[Counter[str]]


def counted_epoch(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> Epoch:
    """Train an epoch whose steps and visits copy nothing and wait for nothing."""
    taken: list[Counts] = []
    visits: list[Counts] = []
    looks: list[Counts] = []
    monkeypatch.setattr(trainer, "_step", recorded(trainer._step, taken))
    monkeypatch.setattr(trainer, "_search_block", recorded(trainer._search_block, visits))
    monkeypatch.setattr(trainer, "_refuse_to_diverge", recorded(trainer._refuse_to_diverge, looks))
    trainer._finish_epoch(lambda: False)
    for counts in (*taken, *visits):
        assert not counts.to_device + counts.to_host + counts.waits
    return Epoch(*([counts.kernels for counts in found] for found in (taken, visits, looks)))


def keeps_to_budget(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, budget: Budget) -> None:
    """An epoch neither copies nor waits, but for the order, the rates and one look at the end."""
    with counted() as epoch:
        found = counted_epoch(trainer, monkeypatch)
    assert 2 < len(found.steps) <= trainer.batches < FINITE_EVERY
    for most, counts in zip(budget, (found.steps[1:], found.visits[1:], found.looks), strict=True):
        for operations in counts:
            assert operations.total() <= most, operations
    assert epoch.to_device == {"copy_": 2}, "the order of the rows and the learning rates"
    assert epoch.to_host.total() == epoch.waits.total() == 1, "whether the objective is finite"


@pytest.mark.parametrize("name", BUDGETS)
def test_training_keeps_to_its_budget(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trainer = trainer_of(name)
    next(trainer.run())
    keeps_to_budget(trainer, monkeypatch, BUDGETS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps_keep_to_their_budget(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(graphs, "recorder_of", recorder_of)
    trainer = trainer_of(name, graphs_too=True)
    epochs = trainer.run()
    for _ in range(2):  # in which all numbers of steps are recorded
        next(epochs)
    keeps_to_budget(trainer, monkeypatch, Budget(RECORDED[name], visit=158))
