"""Populations in shards, trained on a device: the states are those of one process on the CPU."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from distvae.estep.truncated import first_states
from distvae.machines import shards as actors
from distvae.machines.ray_session import ray_session
from distvae.machines.shards import ShardedStore, launch_shards
from distvae.numerics.lanes import Lanes
from distvae.train import checkpoint
from distvae.train.loop import Interrupted
from distvae.train.session import RunOptions, build_trainer, train_in_folder
from tests.device.cases import config_of, dataset
from tests.device.pretended import Machine, Pretended, counted
from tests.device.shards import Promise, store_of
from tests.device.test_training import agree, trained

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come from this process, not from Ray."""
    monkeypatch.setattr(actors, "_answer", Promise.kept)


def sharded(
    name: str, device: str, folder: Path, count: int, missing: bool = False, most: int = 2
) -> None:
    """Train into a folder, from where it stands, with the populations in so many shards, some
    epochs at most.
    """
    config, data = config_of(name, device), dataset(name, missing)
    trainer = build_trainer(config, data, store=store_of(config, len(data.splits["train"]), count))
    options = RunOptions(resume=True, stop=lambda: trainer.position.epoch == most)
    with suppress(Interrupted):
        for _ in train_in_folder(trainer, config, data, folder, options):
            pass


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "count", "missing"),
    [("fitness", 1, False), ("fitness", 2, True), ("released", 2, False), ("random", 1, True)],
)
def test_training_with_shards_is_that_of_one_process_on_the_cpu(
    machine: Machine, tmp_path: Path, name: str, count: int, missing: bool
) -> None:
    with counted() as counts:
        sharded(name, "auto", tmp_path / "there", count, missing)
    assert counts.kernels["_fused_adam_"] == 2 * 3
    sharded(name, "cpu", tmp_path / "here", 3 - count, missing)
    expected = trained(name, "cpu", tmp_path / "alone", missing)
    for folder in (tmp_path / "there", tmp_path / "here"):
        found = checkpoint.load(folder, "last")[0]
        agree(found, {tensor: expected[tensor] for tensor in found})


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("devices", [("cpu", "auto"), ("auto", "cpu")], ids=" to ".join)
def test_any_device_and_number_of_shards_goes_on(
    machine: Machine, tmp_path: Path, devices: tuple[str, str]
) -> None:
    for epochs, device in enumerate(devices, 1):
        sharded("best", device, tmp_path / "there", count=epochs, most=epochs)
    expected = trained("best", "cpu", tmp_path / "alone")
    found = checkpoint.load(tmp_path / "there", "last")[0]
    agree(found, {tensor: expected[tensor] for tensor in found})


@pytest.fixture
def running() -> Iterator[None]:
    with ray_session(None, 1):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("running")
def test_states_of_a_device_live_in_actors(machine: Machine, tmp_path: Path) -> None:
    lanes, rows = Lanes(100, 4), torch.arange(0, 100, 3)
    draw = partial(first_states, 6, 70, 0)
    store = ShardedStore(launch_shards(lanes, 2, 6, 2))
    store.initialise(draw)
    words = (draw(rows) ^ 1).to(machine.device)
    store.prefetch(rows)
    store.put(rows, words)
    store.prefetch(rows)
    found = store.get(rows)
    assert not isinstance(found, Pretended)
    assert torch.equal(found, words.cpu())
    store.load(tmp_path, store.save(tmp_path, "1"))
    assert torch.equal(store.get(rows), words.cpu())
