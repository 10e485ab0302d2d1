"""Two states of a training are kept and nothing older, each complete or refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from distvae.estep.store import PopulationFile
from distvae.estep.truncated import Search
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.train import checkpoint, session
from distvae.train.checkpoint import CheckpointFacts
from distvae.train.run_folder import (
    OWNER,
    delete_run,
    read_epochs,
    state_folder,
    take_ownership,
    update_local_copy,
)
from distvae.train.session import RunOptions, Savings, build_trainer, fit, train_in_folder
from tests import tiny
from tests.slowly import slow

TVAE: dict[str, Any] = {
    "model": {"kind": "tvae"},
    "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 16},
}


@pytest.fixture
def always_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every epoch, however long that takes."""
    monkeypatch.setattr(Savings, "share", 1e9)
    monkeypatch.setattr(Savings, "pause", 0.0)


def advance(folder: Folder, epoch: int, batch: int = 0) -> None:
    """Save a training at the end of an epoch, or later, with one file of populations."""
    file = f"population-{epoch}.arrow"
    folder.write(file, bytes(epoch))
    position = {"epoch": epoch, "batch": batch}
    facts = cast(CheckpointFacts, {"position": position, "populations": [{"file": file}]})
    checkpoint.save_last(folder, {"w": torch.tensor([float(epoch)])}, facts)


@pytest.mark.parametrize("last", [1, 2, 5])
def test_the_files_of_the_last_two_generations_are_kept_and_no_others(
    last: int, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    beside = {"notes.txt", "epochs.jsonl"}
    unfinished = (".population-0.arrow.1a2b.partial", ".last-0.1a2b.partial.safetensors")
    for name in (*beside, *unfinished):
        folder.write(name, b"")
    for epoch in range(1, last + 1):
        advance(folder, epoch)
    kept = {file for file in folder.list_files() if file.startswith("population-")}
    assert kept == {f"population-{epoch}.arrow" for epoch in range(max(1, last - 1), last + 1)}
    assert {
        file
        for file in folder.list_files()
        if not file.startswith(("population-", "last", "previous"))
    } == beside
    for name, epoch in {"last": last, "previous": last - 1}.items():
        if epoch:
            assert checkpoint.load(folder, name)[0]["w"].item() == epoch


def test_going_back_makes_the_previous_state_the_last(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(Refusal, match="no checkpoint before the last"):
        checkpoint.restore_previous(folder)
    advance(folder, 1)
    advance(folder, 2)
    assert checkpoint.restore_previous(folder) == 1
    assert checkpoint.load(folder, "last")[0]["w"].item() == 1
    advance(folder, 2)
    assert checkpoint.load(folder, "previous")[0]["w"].item() == 1
    tensors = checkpoint.read_manifest(folder, "previous.json")["tensors"]
    folder.write(tensors, folder.read(tensors)[:-1])
    with pytest.raises(Refusal, match="altered or damaged"):
        checkpoint.restore_previous(folder)
    assert checkpoint.load(folder, "last")[0]["w"].item() == 2


def test_a_state_that_does_not_say_which_weights_were_best_leaves_them(tmp_path: Path) -> None:
    """As one of version 0.1.0."""
    folder = Folder(tmp_path)
    advance(folder, 1)
    state = json.loads(folder.read("last.json"))
    checkpoint.save(folder, "best", {"w": torch.ones(1)}, state["facts"])
    del state["facts"]["best"]
    folder.write("last.json", json.dumps(state).encode())
    checkpoint.restore_best(folder)
    assert checkpoint.load(folder, "best")[0]["w"].item() == 1


def test_the_best_weights_after_a_crash_are_of_an_epoch_that_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Savings, "share", 1e-9)  # after the first epoch, and not again

    def best() -> int:
        return int(checkpoint.load(tmp_path, "best")[1]["epoch"])

    config = tiny.config()
    epochs = fit(config, tiny.dataset(), tmp_path, resume=True)
    assert [next(epochs).best for _ in range(3)] == [True] * 3, (
        "no epoch is better than one before: this shows nothing"
    )
    del epochs
    assert best() == 3
    epochs = fit(config, tiny.dataset(), tmp_path, resume=True)
    assert next(epochs).epoch == best() == 2
    assert len(list(tmp_path.glob("best-*"))) == 2, "that of this epoch, and that of the last state"


@pytest.mark.usefixtures("always_saving")
@pytest.mark.parametrize("lost", ["last-*.safetensors", *slow("population-00003-*.arrow")])
def test_a_lost_file_is_named_with_the_way_back_which_ends_as_if_nothing_had_been(
    tmp_path: Path, lost: str
) -> None:
    whole, run, config = (
        tmp_path / "whole",
        tmp_path / "run",
        tiny.config(**TVAE, train={"epochs": 4}),
    )
    list(fit(config, tiny.dataset(), whole))
    begun = fit(config, tiny.dataset(), run)
    for _ in range(3):
        next(begun)
    del begun
    name = (
        checkpoint.read_manifest(run, "last.json")["tensors"]
        if "last" in lost
        else next(run.glob(lost)).name
    )
    (run / name).unlink()
    with pytest.raises(
        Refusal, match=f"{name}.*--previous resumes from the checkpoint before it, of epoch 2"
    ):
        list(fit(config, tiny.dataset(), run, resume=True))
    assert checkpoint.restore_previous(Folder(run)) == 2
    list(fit(config, tiny.dataset(), run, resume=True))
    bounds = [[epoch["val_bound"] for epoch in read_epochs(out)] for out in (whole, run)]
    assert bounds[0] == bounds[1]


@pytest.mark.usefixtures("always_saving")
@pytest.mark.parametrize("act", [take_ownership, shutil.rmtree, delete_run])
def test_a_training_whose_folder_another_took_over_or_deleted_ends_without_harm(
    tmp_path: Path, act: Callable[..., object]
) -> None:
    run = tmp_path / "run"
    epochs = fit(tiny.config(**TVAE), tiny.dataset(), run)
    next(epochs)
    if act is take_ownership:
        act(Folder(run))
    elif act is delete_run:
        act(run, force=True)
    else:
        act(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()} if run.exists() else {}
    with pytest.raises(Refusal, match="another process trains this run, or the run was deleted"):
        list(epochs)
    if act is take_ownership:
        assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_workers_of_a_former_owner_who_begin_again_forget_no_epoch_of_the_next(
    tmp_path: Path,
) -> None:
    config, data, folder = tiny.config(), tiny.dataset(), Folder(tmp_path / "run")
    former = fit(config, data, folder)
    next(former)
    old = folder.read(OWNER).decode()
    successor = fit(config, data, folder, resume=True)
    next(successor)
    before = folder.read("epochs.jsonl")
    folder.delete("last.json")  # as they found it when they began
    options = RunOptions(resume=True, owner=old)
    with pytest.raises(Refusal, match="another process trains this run"):
        list(train_in_folder(build_trainer(config, data), config, data, folder, options))
    assert folder.read("epochs.jsonl") == before


@pytest.mark.usefixtures("always_saving")
def test_a_copy_of_a_run_has_the_weights_that_it_names_and_no_earlier_ones(tmp_path: Path) -> None:
    run, config = tmp_path / "run", tiny.config(train={"epochs": 3})
    there = state_folder(run, f"file://{tmp_path}/kept", resume=False, force=False)
    epochs = fit(config, tiny.dataset(), there)
    for _ in range(2):
        next(epochs)
        update_local_copy(there, run)
    named = {checkpoint.read_manifest(run, name)["tensors"] for name in ("best.json", "last.json")}
    assert {path.name for path in run.glob("*.safetensors")} == named


def test_a_checkpoint_names_no_populations_that_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a worker's machine lacks the shared disk: it writes under the same path."""
    monkeypatch.setattr(session, "SEEN_WITHIN", 0.0)
    save = Search.save

    def save_elsewhere(self: Search, place: Path | str, generation: str) -> list[PopulationFile]:
        (tmp_path / "other").mkdir()
        return save(self, str(tmp_path / "other"), generation)

    monkeypatch.setattr(Search, "save", save_elsewhere)
    with pytest.raises(Refusal, match=r"population-.* is not there, though another worker saved"):
        list(fit(tiny.config(**TVAE), tiny.dataset(), tmp_path / "run"))
    assert not (tmp_path / "run" / "last.json").exists()
