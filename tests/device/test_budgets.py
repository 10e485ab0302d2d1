"""Device operations of a training step and of the search of a block: a budget for each kind of
model, without copies or waits.

An operation of torch counts as one, although some operations, for example a sort, are several GPU
kernels.
"""

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
from tests.slowly import slow

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


COUNTED = ("_step", "_search_block", "_refuse_to_diverge")
"""A step, the visit of a block, and a look at the objective."""


def counted_epoch(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[list[Counts]]:
    """Return the operations of each step, visit of a block, and look of an epoch."""
    found: list[list[Counts]] = [[] for _ in COUNTED]

    def counting(function: Callable[..., Any], calls: list[Counts]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with counted() as counts:
                result = function(*arguments)
            calls.append(counts)
            return result

        return call

    for name, calls in zip(COUNTED, found, strict=True):
        monkeypatch.setattr(trainer, name, counting(getattr(trainer, name), calls))
    trainer._finish_epoch(lambda: False)
    return found


def keeps_to_budget(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, budget: Budget) -> None:
    """An epoch neither copies nor waits, but for the order, the rates and one look at the end."""
    with counted() as epoch:
        steps, visits, looks = counted_epoch(trainer, monkeypatch)
    assert 2 < len(steps) <= trainer.batches < FINITE_EVERY
    for counts in (*steps, *visits):
        assert not counts.to_device + counts.to_host + counts.waits
    for most, calls in zip(budget, (steps[1:], visits[1:], looks), strict=True):
        for counts in calls:
            assert counts.kernels.total() <= most, counts.kernels
    assert epoch.to_device == {"copy_": 2}, "the order of the rows and the learning rates"
    assert epoch.to_host.total() == epoch.waits.total() == 1, "whether the objective is finite"


@pytest.mark.parametrize("name", ["fitness_batch", "vae", *slow("bernoulli", "vsc", "sdm dct")])
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


@pytest.mark.parametrize("limit", [1, 3])
def test_a_search_for_supports_reads_back_two_numbers_whatever_its_limit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    model = {"kind": "ssc", "cycles": 0, "limit": limit}
    train = {"batch": BATCH, "device": "auto", "epochs": 3}
    config = tiny.config(model=model, estep={"kind": "selection"}, train=train)
    trainer = build_trainer(config, tiny.dataset(ROWS))
    next(trainer.run())
    steps, _, _ = counted_epoch(trainer, monkeypatch)
    for counts in steps[1:]:
        assert counts.kernels.total() <= 160 + 44 * limit, counts.kernels
        assert counts.to_host.total() == counts.waits.total() == 2, "the limit and the cycle"
        assert not counts.to_device
