"""A training that goes on from snapshots is the training that nothing happened to, bit for bit."""

import math
from contextlib import suppress
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.estep.store import LocalStore, packed, parts_of
from distvae.files.storage import Folder
from distvae.interface import Batch, Sums
from distvae.machines.shards import (
    PART_BYTES,
    Moment,
    Shards,
    row_parts,
    store_of,
)
from distvae.numerics.noise import Noise
from distvae.train import checkpoint
from distvae.train.checkpoint import PositionFacts, pack_tensors, weights
from distvae.train.loop import Trainer
from distvae.train.run_folder import has_saved_state, read_epochs
from distvae.train.session import RunOptions, build_trainer, fit, train_in_folder
from distvae.train.team import ALONE
from tests.device.cases import config_of, dataset
from tests.device.pretended_ray import OWNER, Actor, pretend
from tests.slowly import slow

pytestmark = pytest.mark.usefixtures("double")
SLOW = [
    pytest.param(name, "auto", marks=pytest.mark.slow)
    for name in ("vae", "released", "sdm learned")
]


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> dict[str, Actor]:
    """Return the actors of a Ray by machine: one, on the machine `here`.

    Snapshots are sent however long sending takes.
    """
    monkeypatch.setattr("distvae.machines.shards.COPY_SHARE", math.inf)
    found = pretend(monkeypatch)
    found["here"] = Actor()
    return found


class Lost(Exception):
    """The process of a training is lost."""


class Training:
    """A training with snapshots, step by step; it can be left at any time without a word."""

    def __init__(self, name: str, device: str, folder: Path, *homes: str) -> None:
        """Make a training that sends a snapshot to some machines at the end of each block."""
        config, data = config_of(name, device, train={"epochs": 3}), dataset(name)
        self.said: list[str] = []
        self.shards = Shards(ALONE, OWNER, homes, 0.0, self.said.append)
        resumes = self.shards.find() or has_saved_state(Folder.of(folder))
        self.trainer = build_trainer(config, data, resumes=resumes)
        self.recalled = False
        options = RunOptions(resume=True, recall=self._recall, between=self.shards.send_if_due)
        self.epochs = train_in_folder(self.trainer, config, data, folder, options)
        self.permits, self.taken = Semaphore(0), Semaphore(0)
        self.endless = self.lost = False
        self.step = self.trainer.steps.step
        self.trainer.steps.step = self._step  # type: ignore[method-assign]
        self.thread = Thread(target=self._train, daemon=True)
        self.ended = Event()

    def _recall(self, trainer: Trainer, saved: tuple[int, int] | None) -> bool:
        self.recalled = self.shards.restore(trainer, saved)
        return self.recalled

    def _train(self) -> None:
        # The setting belongs to a thread: `present` made it for the thread of the test alone.
        with torch.autograd.set_multithreading_enabled(False), suppress(Lost):
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
        """Take some steps, or all."""
        self.endless = steps is None
        if self.thread.ident is None:
            self.thread.start()
        else:
            self.permits.release()
        for number in range(steps or 0):
            if number:
                self.permits.release()
            assert self.taken.acquire(timeout=300)
        if self.endless:
            assert self.ended.wait(timeout=300)

    def leave(self) -> None:
        """Lose the process."""
        self.lost = True
        self.permits.release()
        assert self.ended.wait(timeout=300)


def outcome(folder: Path) -> list[Any]:
    """Return the figures of all epochs, and the last tensors and populations."""
    figures = [
        {name: value for name, value in epoch.items() if "second" not in name}
        for epoch in read_epochs(folder)
    ]
    tensors, facts = checkpoint.load(folder, "last")
    kept = [file["sha256"] for file in facts["populations"]]
    best = checkpoint.read_manifest(folder, "best.json")["sha256"]
    return [figures, {name: value.tolist() for name, value in tensors.items()}, kept, best]


@pytest.mark.parametrize(
    ("name", "device"),
    [("fitness", "cpu"), *SLOW],
)
@pytest.mark.usefixtures("machine")
def test_a_training_that_is_lost_goes_on_from_its_last_snapshot(
    name: str, device: str, tmp_path: Path, actors: dict[str, Actor]
) -> None:
    Training(name, device, tmp_path / "whole").take()
    for steps in (2, 5):
        lost = Training(name, device, tmp_path / "lost", "here")
        lost.take(steps)
        position = lost.trainer.position
        lost.leave()
        again = Training(name, device, tmp_path / "lost", "here")
        again.take(1)
        # No more than a block is trained again.
        gone = again.trainer.position.epoch, again.trainer.position.batch
        assert (position.epoch, position.batch - 2) <= gone
        again.leave()
    Training(name, device, tmp_path / "lost", "here").take()
    assert len(actors["here"].shard.snapshots) == 2
    assert outcome(tmp_path / "lost") == outcome(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return the outcome of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_default_dtype(torch.float64)
    for _ in fit(config_of("fitness", "cpu", train={"epochs": 3}), dataset("fitness"), folder):
        pass
    return outcome(folder)


FOLDER, SILENT, FORGETS = "no folder", "silent", "forgets"


@pytest.mark.parametrize("fault", [FORGETS, *slow(FOLDER, SILENT)])
def test_a_shard_that_fails_is_told_or_filled_again_and_training_does_not_notice(
    fault: str, tmp_path: Path, actors: dict[str, Actor], whole: list[Any]
) -> None:
    if fault == FOLDER:
        actors["here"] = Actor(mapped=str(tmp_path / "absent"))
    training = Training("fitness", "cpu", tmp_path / "lost", "here")
    training.take(2)
    if fault == SILENT:
        actors["here"].silent = True
    elif fault == FORGETS:
        actors["here"].lose()
    training.take(4)
    training.leave()
    if fault == SILENT:
        assert training.said == ["a shard has not answered for 10 s; it is replaced"]
    elif fault == FOLDER:
        assert len(training.said) == 1
        assert training.said[0].startswith("a snapshot of worker 0 is lost (")
        assert actors["here"].shard.known() == []
    again = Training("fitness", "cpu", tmp_path / "lost", "here")
    again.take()
    assert again.recalled == (fault != FOLDER)
    assert outcome(tmp_path / "lost") == whole


@pytest.mark.slow
@pytest.mark.parametrize("lost", [["here"], ["there"], ["here", "there"]])
def test_either_machine_may_be_lost_with_its_snapshots(
    lost: list[str], tmp_path: Path, actors: dict[str, Actor], whole: list[Any]
) -> None:
    actors["there"] = Actor(mapped=str(tmp_path))
    training = Training("fitness", "cpu", tmp_path / "lost", "there", "here")
    training.take(6)
    training.leave()
    for name in lost:
        actors[name].lose()
    again = Training("fitness", "cpu", tmp_path / "lost", "there", "here")
    again.take()
    assert again.recalled == (len(lost) == 1), "with no snapshots it goes on from the folder"
    assert outcome(tmp_path / "lost") == whole


def send_for_workers(trainer: Trainer, actors: list[Actor], moment: Moment) -> None:
    """Give each actor the snapshot of one of several workers, as if they had trained together."""
    store = store_of(trainer)
    assert store is not None
    position: PositionFacts
    position = {"epoch": 1, "batch": 2, "best": -3.0, "best_epoch": 1, "seconds": 1.0}
    sums = torch.tensor([2.0**rank for rank in range(len(actors))])
    tensors = weights(trainer.model, trainer.estep) | trainer.adam.state()
    tensors["totals.objective"] = sums.double()
    for rank, actor in enumerate(actors):
        held = store.held.lanes.held(rank, len(actors))
        own = LocalStore(store.get(torch.from_numpy(held.part(slice(None)))), held)
        actor.shard.begin(moment, rank, None)
        for part in row_parts(len(held), store.shape):
            actor.shard.put(moment, rank, packed(own, part))
        if rank == 0:
            content = pack_tensors(tensors)
            for part in parts_of(len(content), PART_BYTES):
                actor.shard.put(moment, rank, content[part])
        actor.shard.finish(moment, rank, position)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("workers", "part_bytes", "device"), [(1, PART_BYTES, "auto"), (3, 5000, "cpu")]
)
def test_fewer_workers_read_the_snapshots_of_more(
    workers: int,
    part_bytes: int,
    device: str,
    actors: dict[str, Actor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distvae.machines.shards.PART_BYTES", part_bytes)
    former = build_trainer(config_of("fitness", "cpu"), dataset("fitness"))
    actors |= {f"{rank}": Actor() for rank in range(workers)}
    holders = [actors[f"{rank}"] for rank in range(workers)]
    send_for_workers(former, holders, Moment(1, 2, "former", workers))
    trainer = build_trainer(config_of("fitness", device, train={"seed": 9}), dataset("fitness"))
    shards = Shards(ALONE, OWNER, ["here"])
    assert not shards.restore(trainer, saved=None)
    assert shards.find()
    assert not shards.restore(trainer, saved=(1, 2))
    assert shards.restore(trainer, saved=(1, 0))
    assert (trainer.position.epoch, trainer.position.batch) == (1, 2)
    assert float(trainer.total["objective"]) == 2.0**workers - 1
    for name, value in _tensors(former).items():
        assert torch.equal(_tensors(trainer)[name].cpu(), value), name


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    store = store_of(trainer)
    assert store is not None
    return weights(trainer.model, trainer.estep) | {"words": store.read(slice(None))}
