"""Training on a device equals training on the CPU: objectives, weights and checkpoints, also when
it is resumed on either of them.
"""

from pathlib import Path

import numpy as np
import pytest

from distvae.estep.store import LocalStore
from distvae.estep.truncated import Search
from distvae.interface import Searches
from distvae.train.loop import Interrupted
from distvae.train.session import build_trainer, fit
from tests.device.cases import CASES, config_of, dataset
from tests.device.pretended import Machine, Pretended
from tests.device.training import agree, trained
from tests.slowly import slow

pytestmark = pytest.mark.usefixtures("double")
QUICK = ["vae", "sdm learned", "released", "selection"]
NAMES = [
    *QUICK,
    *slow("vsc pseudo", "gumbel", "random", "exact", "fitness_batch", "crossover, sparse flips"),
    *slow(
        "bernoulli",
        "bsc, least squares",
        "two layers, linear first",
        "narrow horizon",
        "own first states",
        "supports",
    ),
]
"""One case of each model, of each E-step and of each operator."""

MISSING = ["vae", "vsc pseudo", "exact", "bernoulli", "fitness_batch", "selection"]
"""Cases with missing values."""
FITTED = ["bsc, least squares", "selection", "supports"]
"""Cases without gradients."""


@pytest.mark.parametrize("name", NAMES)
def test_training_is_that_of_the_cpu(machine: Machine, tmp_path: Path, name: str) -> None:
    missing = name in MISSING
    with machine.counted() as counts:
        found = trained(name, "auto", tmp_path / "there", missing)
    steps = 0 if name in FITTED else 2 * 3
    assert counts.kernels["_fused_adam_"] == steps, "all steps were taken on the device"
    assert counts.kernels["linalg_pinv"] == (2 if "bsc" in name else 0), "once an epoch"
    agree(found, trained(name, "cpu", tmp_path / "here", missing))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gumbel", "released"])
@pytest.mark.parametrize("devices", [("cpu", "auto"), ("auto", "cpu")], ids=" to ".join)
def test_any_device_goes_on_with_what_another_began(
    machine: Machine, tmp_path: Path, name: str, devices: tuple[str, str]
) -> None:
    begun = tmp_path / "begun"
    stops = iter([False, True])
    config, data = config_of(name, devices[0], train={"epochs": 4, "bits": "any"}), dataset(name)
    with pytest.raises(Interrupted):
        list(fit(config, data, begun, stop=lambda: next(stops)))
    with machine.counted() as counts:
        found = trained(name, devices[1], begun, train={"epochs": 4, "bits": "any"})
    assert bool(counts.kernels) == (devices[1] == "auto")
    agree(found, trained(name, "cpu", tmp_path / "at once", train={"epochs": 4, "bits": "any"}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fitness_batch"])
def test_mapped_populations_stay_on_the_host_and_travel_by_blocks(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    mapped = CASES[name]["estep"] | {"mapped": str(tmp_path)}
    found = trained(name, "auto", tmp_path / "there", estep=mapped)
    agree(found, trained(name, "cpu", tmp_path / "here"))
    trainer = build_trainer(config_of(name, estep=mapped), dataset(name))
    assert isinstance(trainer.estep, Search)
    assert isinstance(trainer.estep.store, LocalStore)
    assert not isinstance(trainer.estep.store.words, Pretended)
    with machine.counted() as counts:
        next(trainer.run())
    words = trainer.estep.store.words
    assert counts.bytes["to_host"] < 1.1 * words.numel() * words.itemsize, (
        "each row's words come back once"
    )


@pytest.mark.parametrize("name", ["vsc pseudo", "gumbel"])
def test_a_step_with_an_encoder_waits_for_nothing(machine: Machine, name: str) -> None:
    trainer = build_trainer(config_of(name), dataset(name))
    trainer.step(np.arange(16))
    with machine.counted() as counts:
        trainer.step(np.arange(16))
    assert not counts.waits
    assert counts.to_device == {"copy_": 2}, "the values and the numbers of the rows"


def test_a_step_with_populations_brings_nothing_to_the_host(machine: Machine) -> None:
    trainer = build_trainer(config_of("fitness"), dataset("fitness"))
    rows = trainer.share.order(0, 0)(0, 32)
    with machine.counted() as counts:
        batch, noise = trainer._batch(rows)
        assert isinstance(trainer.estep, Searches)
        trainer.estep.search_block(trainer.model, batch, noise)
        trainer.step(rows[:16])
    assert not counts.to_host
    assert not counts.waits.keys() & {"copy_", "_to_copy"}
