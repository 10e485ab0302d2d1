"""Trainings and sweeps from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import distvae
from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.interactive.given import data_settings, kept_rows
from distvae.interactive.training import configured

TINY = {
    "data": {"kind": "bars", "rows": 64},
    "model": {"latent": 3, "hidden": [8], "likelihood": "gaussian"},
    "estep": {"hidden": [8], "input": "raw"},
    "train": {"epochs": 2, "batch": 16, "device": "cpu"},
    "eval": {"processes": 1},
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTVAE_DATA", raising=False)


def rows() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)


def test_an_array_is_kept_once_with_all_its_rows() -> None:
    x = rows()
    folder = kept_rows(x)
    assert kept_rows(x.astype(np.float64)) == folder
    splits = open_dataset(from_dict({"data": {"kind": "rows", "path": str(folder)}}).data).splits
    assert {name: len(part) for name, part in splits.items()} == {"train": 40, "val": 5, "test": 5}
    found = np.concatenate([part[:] for part in splits.values()])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))


@pytest.mark.parametrize("data", [np.zeros(3), np.zeros((0, 3)), np.array([["a"]])])
def test_what_is_no_table_is_refused(data: NDArray[np.generic]) -> None:
    with pytest.raises(Refusal, match=r"data: .* real numbers expected"):
        kept_rows(data)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(Refusal, match="data: rows of different lengths"):
        kept_rows([[1.0, 2.0], [3.0]])


def test_the_kind_of_data_is_recognised(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("L", (8, 8), number * 50).save(tmp_path / f"{number}.png")
    speech = from_dict({})
    assert data_settings(speech, tmp_path) == {"data.kind": "images", "data.path": str(tmp_path)}
    bars = from_dict({"data": {"kind": "bars"}})
    assert data_settings(bars, tmp_path) == data_settings(speech, tmp_path)
    windows = from_dict({"data": {"kind": "crops"}})
    assert data_settings(windows, tmp_path) == {"data.path": str(tmp_path)}
    images = from_dict({"data": {"kind": "images"}})
    assert data_settings(images, str(tmp_path)) == {"data.path": str(tmp_path)}
    assert data_settings(speech, "built-in speech") == {"data.path": "built-in speech"}
    assert data_settings(speech, None) == {}


def test_a_recipe_has_the_settings_that_are_given() -> None:
    name, config = configured("mnist-vae", rows(), {"model.likelihood": "gaussian"})
    assert (name, config.data.kind, config.model.likelihood) == ("mnist-vae", "rows", "gaussian")
    assert configured(config, None, {"train.epochs": 3})[1] == config.with_("train", epochs=3)
    assert configured(TINY, None, {})[1] == from_dict(TINY)


@pytest.mark.slow
def test_a_training_gives_what_the_command_writes(tmp_path: Path) -> None:
    settings: dict[str, Plain] = {"train.epochs": 3, "train.sinks": ["tensorboard"]}
    training = distvae.train(TINY, settings=settings, out=tmp_path / "run")
    summary = json.loads((tmp_path / "run/evaluation/test/summary.json").read_text())
    assert training.figures == summary
    assert training.folder == tmp_path / "run"
    assert len(training.run.epochs()) == 3
    assert (tmp_path / "run/mlflow.json").is_file()
    assert list(tmp_path.glob("run/tensorboard/events.*"))
    page = training._repr_html_()
    assert page.count("data:image/") == len(list(tmp_path.glob("run/**/*.png")))
    for name in summary:
        assert f"<td>{name}</td>" in page
    with pytest.raises(Refusal, match="exists"):
        distvae.train(TINY, out=tmp_path / "run")


@pytest.mark.slow
def test_a_training_on_an_array_is_evaluated_on_rows_left_out(tmp_path: Path) -> None:
    training = distvae.train(TINY, rows(), out=tmp_path / "run")
    assert training.figures["rows"] == 5
    assert training.run.config.data.kind == "rows"


@pytest.mark.slow
def test_a_sweep_gives_trials_and_their_front(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(TINY))
    space: dict[str, Plain] = {
        "base": str(recipe),
        "metrics": {"bound": "max", "hoyer": "max"},
        "search": "grid",
        "axes": [{"key": "model.latent", "choice": [2, 3]}],
    }
    sweep = distvae.tune(space, out=tmp_path / "sweep")
    assert {result.values["model.latent"] for result in sweep.trials} == {2, 3}
    bounds = [result.figures["bound"] for result in sweep.trials]
    assert bounds == sorted(bounds, reverse=True)
    assert sweep.trials[0] in sweep.front
    best = sweep.run(sweep.trials[0])
    assert best.model.code_size == sweep.trials[0].values["model.latent"]
    assert "data:image/" in sweep._repr_html_()
    assert (sweep.folder / "report.html").is_file()
