"""Training that goes on from copies is the training that nothing happened to, bit for bit."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distvae.files.storage import Folder
from distvae.interface import Batch, Sums
from distvae.machines.copies import sent_copy
from distvae.machines.copies import worker_copies as module
from distvae.machines.copies.keeper import Extent, WorkerState
from distvae.machines.copies.sent_copy import arrays
from distvae.machines.copies.worker_copies import WorkerCopies, store_of
from distvae.numerics.noise import Noise
from distvae.train import checkpoint, loop
from distvae.train.loop import Trainer
from distvae.train.run import read_epochs
from distvae.train.run_folder import has_saved_state
from distvae.train.session import RunOptions, build_trainer, train_in_folder
from distvae.train.team import ALONE
from distvae.train.weights import weights
from tests.device.cases import config_of, dataset
from tests.device.keepers import Actor, Promise, Roll, ask_all
from tests.device.pretended import Machine
from tests.slowly import slow

pytestmark = pytest.mark.usefixtures("double", "in_process")
NAMES = [
    "fitness",
    "vae",
    *slow("released", "bsc", "sdm learned"),
]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come from this process, not from Ray; there is a point at the end of each block, and
    a model without a search is copied often.
    """
    for each in (module, sent_copy):
        monkeypatch.setattr(each, "answer", Promise.kept)
    monkeypatch.setattr(module, "ask_all", ask_all)
    monkeypatch.setattr(module, "machine_name", lambda: "here")
    monkeypatch.setattr(module, "POINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "COPY_EVERY", 1)


class Lost(Exception):
    """The process of a training is lost."""


class Training:
    """A training with copies, step by step; it can be left at any time without a word."""

    def __init__(
        self, name: str, device: str, folder: Path, keepers: Sequence[Actor] | Roll
    ) -> None:
        config, data = config_of(name, device, train={"epochs": 3}), dataset(name)
        if isinstance(keepers, Roll):
            self.copies = WorkerCopies((), ALONE, keepers, 1)
        else:
            self.copies = WorkerCopies(keepers, ALONE)
        resumes = self.copies.find() or has_saved_state(Folder.of(folder))
        self.trainer = build_trainer(config, data, resumes=resumes)
        options = RunOptions(resume=True, copies=self.copies)
        self.epochs = train_in_folder(self.trainer, config, data, folder, options)
        self.permits, self.taken = Semaphore(0), Semaphore(0)
        self.endless = self.lost = False
        self.step = self.trainer.steps.step
        self.trainer.steps.step = self._step  # type: ignore[method-assign]
        self.thread = Thread(target=self._train, daemon=True)
        self.ended = Event()

    def _train(self) -> None:
        with suppress(Lost):
            for _ in self.epochs:
                pass
        self.ended.set()
        self.taken.release()

    def _step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        sums = self.step(batch, noise, rows)
        self.taken.release()
        if not self.endless:
            self.permits.acquire()
        if self.lost:
            raise Lost
        return sums

    def take(self, steps: int | None = None) -> None:
        """Take so many steps, or all."""
        self.endless = steps is None
        if self.thread.ident is None:
            self.thread.start()
        else:
            self.permits.release()
        for number in range(steps or 0):
            if number:
                self.permits.release()
            assert self.taken.acquire(timeout=60)
        if self.endless:
            assert self.ended.wait(timeout=60)

    def leave(self) -> None:
        """Lose the process."""
        self.lost = True
        self.permits.release()
        assert self.ended.wait(timeout=60)


def outcome(folder: Path) -> list[Any]:
    """Return the figures of all epochs, and the last tensors and populations."""
    figures = [
        {
            name: value
            for name, value in epoch.items()
            if "second" not in name and "sent" not in name and name != "absent_copies"
        }
        for epoch in read_epochs(folder)
    ]
    tensors, facts = checkpoint.load(folder, "last")
    kept = [file["sha256"] for file in facts["populations"]]
    best = checkpoint.read_manifest(folder, "best.json")["sha256"]
    return [figures, {name: value.tolist() for name, value in tensors.items()}, kept, best]


@pytest.fixture(params=["cpu", "auto"])
def device(request: pytest.FixtureRequest, machine: Machine) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_is_lost_goes_on_from_its_last_point(
    name: str, device: str, tmp_path: Path
) -> None:
    keepers = [Actor()]
    Training(name, device, tmp_path / "whole", [Actor()]).take()
    for steps in (2, 5):
        lost = Training(name, device, tmp_path / "lost", keepers)
        lost.take(steps)
        position = lost.trainer.position
        lost.leave()
        again = Training(name, device, tmp_path / "lost", keepers)
        again.take(1)
        # No more than a block is trained again.
        gone = again.trainer.position.epoch, again.trainer.position.batch
        assert (position.epoch, position.batch - 2) <= gone
        again.leave()
    Training(name, device, tmp_path / "lost", keepers).take()
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


def test_a_training_with_fewer_points_goes_on_from_the_last_of_them(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POINT_SECONDS", 1e9)  # one block to the next point, two, four ...
    keepers = [Actor()]
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    lost = Training("fitness", device, tmp_path / "lost", keepers)
    lost.take(3)
    lost.leave()
    again = Training("fitness", device, tmp_path / "lost", keepers)
    again.take()
    assert again.copies.former
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


def test_copies_for_which_there_is_no_room_are_counted(device: str, tmp_path: Path) -> None:
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    keepers = [Actor(mapped=str(tmp_path / "absent"))]
    training = Training("fitness", device, tmp_path / "run", keepers)
    training.take()
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert [epoch["absent_copies"] for epoch in read_epochs(tmp_path / "run")] == [1, 1, 1]
    assert [epoch["absent_copies"] for epoch in read_epochs(tmp_path / "whole")] == [0, 0, 0]


def test_a_keeper_that_is_lost_is_filled_again_and_training_does_not_notice(
    device: str, tmp_path: Path
) -> None:
    keepers = [Actor()]
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    training = Training("fitness", device, tmp_path / "lost", keepers)
    training.take(2)
    keepers[0].lose()
    training.take(4)
    assert training.copies.timings()["lost_keepers"] == 1
    training.leave()
    again = Training("fitness", device, tmp_path / "lost", keepers)
    assert again.trainer.position.epoch == 0
    again.take()
    assert again.copies.former
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("steps", [*slow(0, 9), 1])
def test_a_copy_moves_to_another_machine_that_joins_and_training_does_not_notice(
    steps: int, device: str, tmp_path: Path
) -> None:
    roll = Roll(k0=Actor())
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    training = Training("fitness", device, tmp_path / "lost", roll)
    training.take(5)
    assert training.copies.look_for_keepers() == 0
    roll.actors["k1"] = Actor("there")
    assert training.copies.look_for_keepers() == 1
    assert training.copies.look_for_keepers() == 0
    assert training.copies.kept_on == [["there", "here"]]
    if steps:
        training.take(steps)
    assert roll.names() == ["k0", "k1"]
    assert training.copies.timings()["lost_keepers"] == 0
    position = training.trainer.position
    training.leave()
    again = Training("fitness", device, tmp_path / "lost", roll)
    again.take(1)
    assert (position.epoch, position.batch - 2) <= (
        again.trainer.position.epoch,
        again.trainer.position.batch,
    )
    again.take()
    assert again.copies.kept_on == [["there", "here"]]
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("lost", [["here"], *slow(["there"], ["here", "there"])])
def test_either_machine_may_be_lost_with_its_copy(
    lost: list[str], device: str, tmp_path: Path
) -> None:
    keepers = {"here": Actor("here"), "there": Actor("there")}
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    training = Training("fitness", device, tmp_path / "lost", [*keepers.values()])
    training.take(6)
    assert training.copies.kept_on == [["there", "here"]]
    training.leave()
    for name in lost:
        keepers[name].lose()
    again = Training("fitness", device, tmp_path / "lost", [*keepers.values()])
    again.take()
    assert (again.copies.former is None) == (len(lost) == 2)
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


def test_keepers_that_nobody_needs_are_ended(device: str, tmp_path: Path) -> None:
    roll = Roll(k0=Actor(), k1=Actor(), k2=Actor("there"))
    training = Training("fitness", device, tmp_path / "run", roll)
    training.take(9)
    assert len(roll.names()) == 2
    assert "k2" in roll.names()
    assert training.copies.timings()["lost_keepers"] == 0


def test_without_copies_it_goes_on_from_the_folder(device: str, tmp_path: Path) -> None:
    keepers = [Actor()]
    Training("fitness", device, tmp_path / "whole", [Actor()]).take()
    training = Training("fitness", device, tmp_path / "lost", keepers)
    training.take(5)
    training.leave()
    keepers[0].lose()
    again = Training("fitness", device, tmp_path / "lost", keepers)
    again.take()
    assert again.copies.former is None
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


def copied(trainer: Trainer, keepers: list[Actor], sums: list[dict[str, Any]]) -> None:
    """Give each keeper the copy of one of several workers, as if they had trained together."""
    store = store_of(trainer)
    assert store is not None
    _, states, words = store.shape
    tensors = arrays(weights(trainer.model, trainer.estep) | trainer.adam.state())
    position = {"epoch": 1, "batch": 2, "best": -3.0, "best_epoch": 1, "seconds": 1.0}
    for rank, keeper in enumerate(keepers):
        rows = store.held.lanes.held(rank, len(keepers)).part(slice(None))
        keeper.keeper.begin("former", Extent(rank, len(keepers), len(rows), states, words))
        keeper.keeper.put(
            "former", slice(0, len(rows)), store.get(torch.from_numpy(rows)).cpu().numpy()
        )
        state = WorkerState(position, sums[rank], tensors if rank < 2 else {})
        keeper.keeper.reach("former", (1, 2), state)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_fewer_workers_read_the_copies_of_more(workers: int, device: str, tmp_path: Path) -> None:
    former = build_trainer(config_of("fitness", "cpu"), dataset("fitness"))
    keepers = [Actor() for _ in range(workers)]
    sums = [{"objective": np.array(2.0**rank)} for rank in range(workers)]
    copied(former, keepers, sums)
    trainer = build_trainer(config_of("fitness", device, train={"seed": 9}), dataset("fitness"))
    copies = WorkerCopies(keepers, ALONE)
    assert not copies.recall(trainer, saved=None)
    assert copies.find()
    assert not copies.recall(trainer, saved=(1, 2))
    assert copies.find()
    assert copies.recall(trainer, saved=(1, 0))
    assert (trainer.position.epoch, trainer.position.batch) == (1, 2)
    assert float(trainer.total["objective"]) == 2.0**workers - 1
    for name, value in _tensors(former).items():
        assert torch.equal(_tensors(trainer)[name].cpu(), value), name


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    store = store_of(trainer)
    assert store is not None
    return weights(trainer.model, trainer.estep) | {"words": store.read(slice(None))}
