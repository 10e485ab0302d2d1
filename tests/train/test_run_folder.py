"""The folder of a run: opened, replaced, damaged, resumed with something else."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distvae
from distvae.files.refusal import Refusal
from distvae.train.run import Run
from distvae.train.run_folder import config_yaml
from distvae.train.session import fit
from tests import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    list(fit(tiny.config(), tiny.dataset(), folder))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_an_opened_run_encodes_and_decodes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    opened = distvae.load("~/run")
    assert opened.path == run
    x = tiny.dataset().splits["test"][:]
    code = opened.encode(x)
    assert code.shape == (len(x), 4)
    assert opened.decode(code).shape == x.shape
    assert (opened.decode(code) > 0).all()
    with pytest.raises(Refusal, match=r"~nobody-here/run: .* the folder of a run expected"):
        distvae.load("~nobody-here/run")
    masked = np.ma.masked_less(x, 0.1)
    dates = np.ma.array(np.zeros(x.shape, "M8[s]"))
    for rows, bins_first, message in (
        (x[:, :5], False, r"rows of 5 values; an array \(power spectra, 12\) expected"),
        (masked, False, "x: holds NaN"),
        (masked.T, True, "x: holds NaN"),
        (dates, False, r"x: holds datetime64\[s\]; real numbers expected"),
    ):
        with pytest.raises(Refusal, match=message):
            opened.encode(rows, bins_first=bins_first)


def write_facts(run: Path, name: str, **facts: object) -> None:
    """Set facts in a JSON file; None deletes one."""
    info = json.loads((run / name).read_text()) | facts
    (run / name).write_text(json.dumps({k: v for k, v in info.items() if v is not None}))


def tensors(run: Path) -> Path:
    """Return the file of the best weights."""
    return run / str(json.loads((run / "best.json").read_text())["tensors"])


def flip_a_bit(run: Path) -> None:
    content = bytearray(tensors(run).read_bytes())
    content[-1] ^= 1
    tensors(run).write_bytes(content)


def write_words(run: Path) -> None:
    tensors(run).write_bytes(b"words")
    write_facts(run, "best.json", sha256=hashlib.sha256(b"words").hexdigest())


def resize(latent: int) -> Callable[[Path], None]:
    def claim(run: Path) -> None:
        content = config_yaml(tiny.config(model={"latent": latent}))
        (run / "config.yaml").write_bytes(content)
        write_facts(run, "run.json", config_sha256=hashlib.sha256(content).hexdigest())

    return claim


def claim(**facts: object) -> Callable[[Path], None]:
    return lambda run: write_facts(run, "run.json", **facts)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip_a_bit, r"best-\w+\.safetensors: altered or damaged"),
    "no tensors": (lambda run: tensors(run).unlink(), r"best-\w+\.safetensors"),
    "no safetensors": (write_words, r"best-\w+\.safetensors: no safetensors \(.*\); the weights"),
    "no memory": (  # a hole, which takes no room on the disk
        lambda run: os.truncate(tensors(run), 2**42),
        r"best-\w+\.safetensors: weights of this size need .* free",
    ),
    "a manifest cut short": (lambda run: (run / "best.json").write_text("{"), r"best\.json"),
    "a manifest of other types": (
        lambda run: write_facts(run, "best.json", tensors=3),
        r"best\.json: altered or damaged: no 'tensors'",
    ),
    "no manifest": (
        lambda run: (run / "best.json").unlink(),
        "no best.json in it: no epoch was finished, or the file was removed",
    ),
    "another version": (claim(version=99), r"run\.json: written by a newer"),
    "other settings": (
        lambda run: (run / "config.yaml").write_text("# a word\n"),
        r"config\.yaml: altered since",
    ),
    "no facts": (lambda run: (run / "run.json").unlink(), "not a run folder"),
    "facts of other types": (claim(rows="x"), r"run\.json: altered or damaged: 'rows'"),
    "no number": (claim(dims="a"), r"run\.json: dims: 'a' is not a whole number"),
    "no list": (claim(shape=3), r"run\.json: shape: 3 is not a list"),
    "too many values": (
        claim(dims=2**50, shape=[]),
        r"weights of \d+ values; \d+ expected by its config\.yaml and run\.json",
    ),
    "too large a shape": (
        claim(shape=[10**6, 10**6]),
        r"run\.json: shape: \[1000000, 1000000\] has 1000000000000 values",
    ),
    "other weights": (
        claim(dims=11, shape=[]),
        r"weights of another model \(.*\); those of its config\.yaml",
    ),
    "a larger model": (resize(5), "weights of .* expected"),
    "a model that memory does not hold": (resize(2**50), "weights of .* expected"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused_by_the_name_of_the_file_before_it_takes_memory(
    run: Path, damage: str
) -> None:
    spoil, message = DAMAGES[damage]
    spoil(run)
    with pytest.raises(Refusal, match=f"{run}.*{message}"):
        Run.open(run)


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [
        (0, 0, "count: 0 is out of range; at least 1"),
        (2.5, 0, "count: 2.5 is not a whole number"),
        (10**12, 0, r"count: 1,000,000,000,000 codes need .* are free; fewer expected"),
        (3, None, "seed: None is not a whole number"),
    ],
)
def test_a_number_of_samples_that_is_none_is_refused(
    trained: Path, count: Any, seed: Any, message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        Run.open(trained).sample(count, seed)


def put_a_sweep_inside(run: Path) -> None:
    (run / "group" / "sweep").mkdir(parents=True)
    (run / "group" / "sweep" / "sweep.json").write_text("{}")


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "neither": ({}, {}, "--resume"),
    "another model": ({"model": {"latent": 5}}, {"resume": True}, "model.latent"),
    "another seed": ({"train": {"seed": 1}}, {"resume": True}, "train.seed"),
    "other data": ({}, {"resume": True}, "other data"),
    "lost settings": ({}, {"resume": True}, r"config\.yaml: missing"),
    "a folder of runs": ({}, {"force": True}, "group/sweep: another run or sweep, which would"),
    "another folder": ({}, {"force": True}, "not a run folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_resumed_or_replaced_is_refused_and_kept(run: Path, case: str) -> None:
    sections, options, message = REFUSED[case]
    if case == "lost settings":
        (run / "config.yaml").unlink()
    elif case == "a folder of runs":
        put_a_sweep_inside(run)
    elif case == "another folder":
        (run / "run.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    data = tiny.dataset(seed=int(case == "other data"))
    with pytest.raises(Refusal, match=message):
        list(fit(tiny.config(**sections), data, run, **options))
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_force_replaces_a_run_also_one_with_damaged_facts(run: Path) -> None:
    write_facts(run, "run.json", rows="x")
    config = tiny.config(train={"epochs": 1})
    assert len(list(fit(config, tiny.dataset(), run, force=True))) == 1
    assert Run.open(run).info["unit"] == "frame"


def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    with pytest.raises(Refusal, match=r"train\.device"):
        list(fit(tiny.config(train={"device": "cuda"}), tiny.dataset(), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
