"""Two generations of a training's state are kept, nothing older, and each is whole or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.refusal import Refusal
from distvae.storage import Folder
from distvae.train import checkpoint
from distvae.train.folder import own
from distvae.train.run import read_epochs
from distvae.train.session import Savings, fit
from tests import tiny

TVAE: dict[str, Any] = {
    "model": {"kind": "tvae"},
    "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 16},
}


@pytest.fixture
def always_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every epoch, however long that takes."""
    monkeypatch.setattr(Savings, "share", 1e9)


def advance(folder: Folder, epoch: int) -> None:
    """A training comes to the end of an epoch; its populations are a file of that name."""
    file = f"population-{epoch}.arrow"
    folder.write(file, bytes(epoch))
    facts = {"position": {"epoch": epoch}, "populations": [{"file": file}]}
    checkpoint.advance(folder, {"w": torch.tensor([float(epoch)])}, facts)


@settings(max_examples=20, deadline=None)
@given(last=st.integers(1, 6))
def test_the_files_of_the_last_two_generations_are_kept_and_no_others(
    last: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Folder(tmp_path_factory.mktemp("run"))
    beside = {"notes.txt", "epochs.jsonl"}
    for name in (*beside, ".population-0.arrow.1a2b.partial", ".last-0.safetensors.1a2b.partial"):
        folder.write(name, b"")
    for epoch in range(1, last + 1):
        advance(folder, epoch)
    kept = {file for file in folder.names() if file.startswith("population-")}
    assert kept == {f"population-{epoch}.arrow" for epoch in range(max(1, last - 1), last + 1)}
    assert {file for file in folder.names() if not file.startswith(("population-", "last", "previous"))} == beside
    for name, epoch in {"last": last, "previous": last - 1}.items():
        if epoch:
            assert checkpoint.load(folder, name)[0]["w"].item() == epoch


def test_a_checkpoint_that_names_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"version": 1}')
    with pytest.raises(Refusal, match=r"best\.json: altered or damaged: no 'tensors' in it"):
        checkpoint.load(tmp_path, "best")


def test_going_back_makes_the_previous_state_the_last(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(Refusal, match="no checkpoint before the last"):
        checkpoint.revert(folder)
    advance(folder, 1)
    advance(folder, 2)
    assert checkpoint.revert(folder) == 1
    assert checkpoint.load(folder, "last")[0]["w"].item() == 1
    advance(folder, 2)
    assert checkpoint.load(folder, "previous")[0]["w"].item() == 1


@pytest.mark.usefixtures("always_saving")
@pytest.mark.parametrize("lost", ["last-*.safetensors", "population-00005-*.arrow"])
def test_a_lost_file_is_named_with_the_way_back_which_ends_as_if_nothing_had_been(tmp_path: Path, lost: str) -> None:
    whole, run, config = tmp_path / "whole", tmp_path / "run", tiny.config(**TVAE, train={"epochs": 6})
    list(fit(config, tiny.dataset(), whole))
    begun = fit(config, tiny.dataset(), run)
    for _ in range(5):
        next(begun)
    del begun
    name = checkpoint.read_manifest(run, "last.json")["tensors"] if "last" in lost else next(run.glob(lost)).name
    (run / name).unlink()
    with pytest.raises(Refusal, match=f"{name}.*--previous goes on from the checkpoint before it, of epoch 4"):
        list(fit(config, tiny.dataset(), run, resume=True))
    assert checkpoint.revert(Folder(run)) == 4
    list(fit(config, tiny.dataset(), run, resume=True))
    bounds = [[epoch["val_bound"] for epoch in read_epochs(out)] for out in (whole, run)]
    assert bounds[0] == bounds[1]


@pytest.mark.usefixtures("always_saving")
def test_a_training_whose_folder_another_took_over_ends_without_harm(tmp_path: Path) -> None:
    epochs = fit(tiny.config(**TVAE), tiny.dataset(), tmp_path / "run")
    next(epochs)
    own(Folder(tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix != ".json"}
    with pytest.raises(Refusal, match="another training goes on with this run"):
        list(epochs)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix != ".json"}


def test_a_run_may_be_kept_at_a_uri(tmp_path: Path) -> None:
    at_path, at_uri = tmp_path / "path", tmp_path / "uri"
    for place in (str(at_path), f"file://{at_uri}"):
        list(fit(tiny.config(**TVAE), tiny.dataset(), place))
    assert [e["val_bound"] for e in read_epochs(at_path)] == [e["val_bound"] for e in read_epochs(at_uri)]
