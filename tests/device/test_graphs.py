"""A step that is recorded once and replayed is the step that is taken as usual."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.numerics.noise import Noise
from distvae.train import graphs
from distvae.train.loop import Interrupted
from distvae.train.session import build_trainer, fit
from tests.device.cases import config_of, dataset
from tests.device.pretended import Machine
from tests.device.tape import record, recorder_of
from tests.device.training import agree, trained

PLAIN = {"epochs": 7, "batch": 16}
GRAPHS = PLAIN | {"graphs": True}
VARIANTS = ["released", "vsc pseudo", "bsc, least squares", "two layers, linear first"]


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pretended device records steps."""
    monkeypatch.setattr(graphs, "recorder_of", recorder_of)


# An epoch of batches of three has 14 steps, the last of them on one row, and a search before every
# tenth.
FEW_ROWS = {"epochs": 3, "batch": 3}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("vae warm", PLAIN),
        *(pytest.param(name, PLAIN, marks=pytest.mark.slow) for name in VARIANTS),
        *(
            pytest.param(name, FEW_ROWS, marks=pytest.mark.slow)
            for name in ("vae warm", "released")
        ),
    ],
)
def test_training_is_that_of_the_cpu(
    machine: Machine, tmp_path: Path, name: str, plain: dict[str, int]
) -> None:
    there = {**plain, "graphs": True}
    with machine.counted() as counts:
        found = trained(name, "auto", tmp_path / "there", missing=True, train=there)
    assert counts.kernels["replay"] >= 4
    assert plain == PLAIN or counts.kernels["replay"] < 3 * 14 / 2, "several steps at once"
    agree(found, trained(name, "cpu", tmp_path / "here", missing=True, train=plain))


def test_a_tensor_that_a_schedule_replaces_is_another_setting() -> None:
    model = build_trainer(config_of("vae", "cpu"), dataset("vae")).model
    kept = graphs.settings_of(model)
    assert graphs.settings_of(model) == kept
    for change in (torch.ones(2), torch.ones(2)):  # of equal values, at another place
        vars(model)["temperature"] = change
        assert graphs.settings_of(model) != kept
        kept = graphs.settings_of(model)
    change.fill_(3)
    assert graphs.settings_of(model) == kept, "recorded steps read the new value"


@pytest.mark.usefixtures("double")
def test_a_step_that_cannot_be_recorded_is_refused_by_the_setting(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(config_of("convolutions", train=GRAPHS), dataset("convolutions"))
    objective = trainer.model.objective

    def waits(batch: Batch, q: Any, noise: Noise) -> Tensor:
        value: Tensor = objective(batch, q, noise)
        return value * float(value.detach().isfinite().all())

    monkeypatch.setattr(trainer.model, "objective", waits)
    with pytest.raises(Refusal, match=r"train\.graphs: .* cannot be recorded .*graphs=false"):
        list(trainer.run())


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["vae", "released"])
def test_a_training_goes_on_where_it_stopped(machine: Machine, tmp_path: Path, name: str) -> None:
    config, data, begun = config_of(name, train=GRAPHS), dataset(name), tmp_path / "begun"
    stops = iter([False, True])
    with pytest.raises(Interrupted):
        list(fit(config, data, begun, stop=lambda: next(stops)))
    found = trained(name, "auto", begun, train=GRAPHS)
    agree(found, trained(name, "auto", tmp_path / "at once", train=GRAPHS))


@pytest.mark.parametrize("name", ["exact", "fitness"])
def test_steps_that_wait_are_not_recorded(machine: Machine, name: str) -> None:
    train = {"graphs": True, "gradients": "autograd"}
    trainer = build_trainer(config_of(name, train=train), dataset(name))
    assert trainer.steps is trainer.eager


def test_a_recording_does_nothing_until_it_is_replayed(machine: Machine) -> None:
    value = torch.arange(3.0, device=machine.device)
    replay, results = record(lambda: {"sum": value.add_(1).sum()})
    assert value.cpu().tolist() == [0, 1, 2]
    assert results["sum"].isnan().item()
    for total in (6, 9):
        replay.replay()
        assert results["sum"].item() == total
    assert value.cpu().tolist() == [2, 3, 4]
