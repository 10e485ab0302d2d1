"""The folder of a run: opened, replaced, damaged, resumed with something else."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distvae
from distvae.files.paths import finished_name, partial_name
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.train import checkpoint
from distvae.train.run import Run
from distvae.train.run_folder import config_yaml
from distvae.train.session import fit
from tests import tiny


@pytest.fixture
def run(tmp_path: Path) -> Path:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "run"))
    return tmp_path / "run"


def test_an_opened_run_encodes_and_decodes(run: Path) -> None:
    opened = distvae.load(run)
    x = tiny.dataset().splits["test"][:]
    code = opened.encode(x)
    assert code.shape == (len(x), 4)
    assert opened.decode(code).shape == x.shape
    assert (opened.decode(code) > 0).all()
    with pytest.raises(Refusal, match=r"rows of 5 values; an array \(power spectra, 12\) expected"):
        opened.encode(x[:, :5])


def test_a_run_below_the_home_folder_is_opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    assert distvae.load("~/run").path == run
    with pytest.raises(
        Refusal, match=r"~nobody-here/run: .* the name or the folder of a run expected"
    ):
        distvae.load("~nobody-here/run")


@pytest.mark.parametrize(
    "damage", ["tensors", "missing", "manifest", "no manifest", "newer", "config", "not a run"]
)
def test_a_damaged_run_is_refused_by_the_name_of_the_file(run: Path, damage: str) -> None:
    name = spoil(run, damage)
    with pytest.raises(Refusal) as refused:
        Run.open(run)
    assert name in str(refused.value)


def spoil(run: Path, damage: str) -> str:
    """Damage a run folder in one way, and return the name that the refusal must contain."""
    # Files that the previous state names may lie beside it.
    named: str = json.loads((run / "best.json").read_text())["tensors"]
    if damage == "no manifest":
        (run / "best.json").unlink()
        return "no best.json in it: no epoch was finished, or the file was removed"
    tensors = run / named
    if damage == "tensors":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "missing":
        tensors.unlink()
    elif damage == "manifest":
        (run / "best.json").write_text("{")
        return "best.json"
    elif damage == "newer":
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(info | {"version": 99}))
        return "run.json"
    elif damage == "config":
        with (run / "config.yaml").open("a") as file:
            file.write("# a word\n")
        return "config.yaml"
    else:
        (run / "run.json").unlink()
        return "not a run folder"
    return tensors.name


def claim(run: Path, **facts: object) -> None:
    """Set facts in run.json; None deletes one."""
    info = json.loads((run / "run.json").read_text()) | facts
    (run / "run.json").write_text(json.dumps({k: v for k, v in info.items() if v is not None}))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"dims": None}, r"run\.json: dims: None is not a whole number"),
        ({"dims": "a"}, r"run\.json: dims: 'a' is not a whole number"),
        ({"shape": 3}, r"run\.json: shape: 3 is not a list"),
        (
            {"dims": 2**50, "shape": []},
            r"weights of \d+ values; \d+ expected by its config\.yaml and run\.json",
        ),
        ({"dims": 10**12, "shape": [10**6, 10**6]}, r"weights of \d+ values; \d+ expected"),
        (
            {"shape": [10**6, 10**6]},
            r"run\.json: shape: \[1000000, 1000000\] has 1000000000000 values",
        ),
        ({"dims": 11, "shape": []}, r"weights of another model \(.*\); those of its config\.yaml"),
    ],
)
def test_facts_that_do_not_fit_the_weights_are_refused(
    run: Path, facts: dict[str, object], message: str
) -> None:
    claim(run, **facts)
    with pytest.raises(Refusal, match=f"{run}.*{message}"):
        Run.open(run)


@pytest.mark.parametrize("latent", [3, 5, 2**50])
def test_a_configuration_of_another_size_is_refused_before_it_takes_memory(
    run: Path, latent: int
) -> None:
    content = config_yaml(tiny.config(model={"latent": latent}))
    (run / "config.yaml").write_bytes(content)
    claim(run, config_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(Refusal, match=f"{run}: weights of .* expected"):
        Run.open(run)


@pytest.mark.parametrize("changes", [{"tensors": 3}, {"sha256": None}, {"facts": []}])
def test_a_manifest_of_other_types_is_refused(run: Path, changes: dict[str, object]) -> None:
    manifest = json.loads((run / "best.json").read_text())
    (run / "best.json").write_text(json.dumps(manifest | changes))
    with pytest.raises(Refusal, match=f"best.json: altered or damaged: no '{next(iter(changes))}'"):
        Run.open(run)


def test_weights_that_are_no_safetensors_are_refused(run: Path) -> None:
    manifest = json.loads((run / "best.json").read_text())
    (run / manifest["tensors"]).write_bytes(b"words")
    sha256 = hashlib.sha256(b"words").hexdigest()
    (run / "best.json").write_text(json.dumps(manifest | {"sha256": sha256}))
    with pytest.raises(Refusal, match=r"best-\w+\.safetensors: no safetensors \(.*\); the weights"):
        Run.open(run)


def test_weights_that_memory_does_not_hold_are_refused_before_they_are_read(run: Path) -> None:
    manifest = json.loads((run / "best.json").read_text())
    os.truncate(run / manifest["tensors"], 2**42)  # a hole, which takes no room on the disk
    with pytest.raises(Refusal, match=rf"{manifest['tensors']}: weights of this size need .* free"):
        Run.open(run)


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [
        (0, 0, "count: 0 is out of range; at least 1"),
        (-1, 0, "count: -1 is out of range"),
        (2.5, 0, "count: 2.5 is not a whole number"),
        ("3", 0, "count: '3' is not a whole number"),
        (10**12, 0, r"count: 1,000,000,000,000 codes need .* are free; fewer expected"),
        (3, None, "seed: None is not a whole number"),
    ],
)
def test_a_number_of_samples_that_is_none_is_refused(
    run: Path, count: Any, seed: Any, message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        Run.open(run).sample(count, seed)


def test_samples_are_counted_and_seeded_by_any_whole_numbers(run: Path) -> None:
    opened = Run.open(run)
    expected = opened.sample(2, 5)
    for two, five in ((np.int64(2), np.int64(5)), (torch.tensor(2), np.array(5))):
        np.testing.assert_array_equal(opened.sample(two, five), expected)  # type: ignore[arg-type]


def test_masked_values_are_missing_ones(run: Path) -> None:
    x = np.ma.masked_less(tiny.dataset().splits["test"][:], 0.1)
    with pytest.raises(Refusal, match="x: holds NaN"):
        Run.open(run).encode(x)
    with pytest.raises(Refusal, match="x: holds NaN"):
        Run.open(run).encode(x.T, bins_first=True)
    dates = np.ma.array(np.zeros(x.shape, "M8[s]"))
    with pytest.raises(Refusal, match=r"x: holds datetime64\[s\]; real numbers expected"):
        Run.open(run).encode(dates)


def test_an_output_that_exists_is_refused_and_kept(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(Refusal, match="--resume"):
        list(fit(tiny.config(), tiny.dataset(), run))
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_no_run_was_begun_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """Its training ended while it wrote config.yaml, and left what a killed process leaves."""
    out = tmp_path / "run"
    write = Folder.write

    def end(folder: Folder, name: str, content: bytes) -> None:
        if name == "config.yaml":
            write(folder, partial_name(name), content)
            raise KeyboardInterrupt
        write(folder, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", end)
        with pytest.raises(KeyboardInterrupt):
            list(fit(tiny.config(), tiny.dataset(), out))
    again = fit(tiny.config(), tiny.dataset(), out, resume=resume, force=not resume)
    assert len(list(again)) == 4
    assert not any(finished_name(path.name) for path in out.iterdir())


def test_only_unfinished_files_are_no_run(tmp_path: Path) -> None:
    (tmp_path / partial_name("run.json")).write_bytes(b"{")
    assert len(list(fit(tiny.config(), tiny.dataset(), tmp_path))) == 4
    assert not any(finished_name(path.name) for path in tmp_path.iterdir())


def test_a_run_that_lost_its_settings_is_not_begun_anew(run: Path) -> None:
    (run / "config.yaml").unlink()
    with pytest.raises(Refusal, match=r"config\.yaml: missing"):
        list(fit(tiny.config(), tiny.dataset(), run, resume=True))
    assert (run / "last.json").exists()


def test_force_replaces_a_run_but_never_another_folder(run: Path, tmp_path: Path) -> None:
    assert len(list(fit(tiny.config(train={"epochs": 1}), tiny.dataset(), run, force=True))) == 1
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("words")
    with pytest.raises(Refusal, match="not a run folder"):
        list(fit(tiny.config(), tiny.dataset(), tmp_path / "precious", force=True))
    assert (tmp_path / "precious" / "thesis.txt").exists()


@pytest.mark.parametrize("inside", ["another/run.json", "group/sweep/sweep.json"])
def test_force_never_deletes_other_runs_and_sweeps(run: Path, inside: str) -> None:
    """The user may have given the folder of all runs as the folder of one run."""
    (run / inside).parent.mkdir(parents=True)
    (run / inside).write_text("{}")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(Refusal, match=f"{Path(inside).parent}: another run or sweep, which would"):
        list(fit(tiny.config(), tiny.dataset(), run, force=True))
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sections", "name"),
    [({"model": {"latent": 5}}, "model.latent"), ({"train": {"seed": 1}}, "train.seed")],
)
def test_a_resume_with_another_configuration_is_refused(
    run: Path, sections: dict[str, Any], name: str
) -> None:
    with pytest.raises(Refusal, match=name):
        list(fit(tiny.config(**sections), tiny.dataset(), run, resume=True))


def test_a_resume_with_other_data_is_refused(run: Path) -> None:
    with pytest.raises(Refusal, match="other data"):
        list(fit(tiny.config(), tiny.dataset(seed=1), run, resume=True))


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(run: Path) -> None:
    before = checkpoint.load(run, "last")
    # The tensors are written, the manifest is not yet replaced.
    (run / "last-000000000000.safetensors").write_bytes(b"half")
    after_crash = checkpoint.load(run, "last")
    assert before[1] == after_crash[1]
    assert all(torch.equal(before[0][key], after_crash[0][key]) for key in before[0])


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    with pytest.raises(Refusal, match=r"train\.device"):
        list(fit(tiny.config(train={"device": "cuda"}), tiny.dataset(), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damage", [{"recipe": None}, {"rows": "x"}, {"data": 3}, {"unit": []}, {"data_digest": None}]
)
def test_facts_that_are_not_as_they_were_written_are_named(
    damage: dict[str, object], tmp_path: Path
) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "run"))
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    (name,) = damage
    with pytest.raises(Refusal, match=rf"run\.json: altered or damaged: '{name}'"):
        Run.open(tmp_path / "run")


def test_a_run_with_damaged_facts_can_still_be_replaced(tmp_path: Path) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "run"))
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unit": None}))
    assert len(list(fit(tiny.config(), tiny.dataset(), tmp_path / "run", force=True))) == 4
    assert Run.open(tmp_path / "run").info["unit"] == "frame"
