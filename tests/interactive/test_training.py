"""Trainings and sweeps from Python."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

import distvae
from distvae import interactive
from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.interactive import Sweep, Training, configured, data_settings, kept_rows
from distvae.train.run import Run
from distvae.train.session import fit
from distvae.tune.results import Findings, Result

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
    half = torch.from_numpy(x).bfloat16()
    assert kept_rows(x.astype(np.float64)) == folder
    assert kept_rows(half) == kept_rows(half.float())
    splits = open_dataset(from_dict({"data": {"kind": "rows", "path": str(folder)}}).data).splits
    assert {name: len(part) for name, part in splits.items()} == {"train": 40, "val": 5, "test": 5}
    found = np.concatenate([part[:] for part in splits.values()])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))


def test_rows_that_no_model_can_be_trained_on_are_refused() -> None:
    data: dict[str, Any] = {
        "data: .* real numbers expected": np.array([["a"]]),
        "data: rows of different lengths": [[1.0, 2.0], [3.0]],
        "data: 2 rows; 3 or more expected, to train, validate and test": np.zeros((2, 3)),
        "data: holds an infinite value, or one beyond float32": np.full((9, 3), 1e300),
    }
    for message, given in data.items():
        with pytest.raises(Refusal, match=message):
            kept_rows(given)


def test_masked_values_are_missing_ones() -> None:
    for x in (np.arange(30).reshape(10, 3), np.arange(30.0, dtype=np.float32).reshape(10, 3)):
        missing = x.astype(np.float64)
        missing[2] = np.nan
        assert kept_rows(np.ma.masked_where(np.isnan(missing), x)) == kept_rows(missing)


def findings(folder: Path, *results: Result) -> Findings:
    return Findings(folder, {"bound": "max"}, list(results), "")


def test_a_sweep_whose_trials_all_failed_is_shown_with_their_causes(tmp_path: Path) -> None:
    failed = Result(7, {"train.rate": 1.0}, "failed", cause="train.rate: <nan>")
    page = Sweep(findings(tmp_path / "<b>", failed))._repr_html_()
    assert "<td>7</td><td>failed</td><td>train.rate: &lt;nan&gt;</td>" in page
    assert "&lt;b&gt;/report.html" in page


def test_the_run_of_a_trial_is_that_of_its_first_seed_and_names_of_files_are_no_html(
    tmp_path: Path,
) -> None:
    config, first = from_dict(TINY).with_("train", epochs=1), tmp_path / "trials" / "1" / "<i>-9"
    list(fit(config, open_dataset(config.data, quiet=True), first))
    shutil.copytree(first, first.with_name("<i>-10"))
    sweep = Sweep(findings(tmp_path))
    assert sweep.run(Result(1, {}, "finished")).path == first
    with pytest.raises(Refusal, match="trials/2: holds no run; a trial that was trained expected"):
        sweep.run(Result(2, {}, "failed"))

    judged = first / "evaluation" / "test"
    judged.mkdir(parents=True)
    Image.new("L", (2, 2)).save(judged / "<u>.png")
    soundfile.write(judged / "<s>.wav", np.zeros(800), 8000)
    training = Training(Run.open(first), {"stoi": 0.91234})
    assert repr(training) == f"<Training {first}: stoi 0.9123>"
    page = training._repr_html_()
    assert page.startswith(f"<p>{first.parent}/&lt;i&gt;-9</p>")
    assert (page.count("&lt;u&gt;"), "&lt;s&gt;" in page) == (2, True)


@pytest.mark.slow
def test_the_kind_of_data_is_recognised(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("L", (8, 8), number * 50).save(tmp_path / f"{number}.png")
    speech = from_dict({})
    assert data_settings(speech, tmp_path) == {"data.kind": "images", "data.path": str(tmp_path)}
    bars = from_dict({"data": {"kind": "bars"}})
    assert data_settings(bars, tmp_path) == data_settings(speech, tmp_path)
    windows = from_dict({"data": {"kind": "crops"}})
    assert data_settings(windows, tmp_path) == {"data.path": str(tmp_path)}
    one = tmp_path / "one.png"
    shutil.copy(tmp_path / "0.png", one)
    assert data_settings(windows, one) == {"data.path": str(one)}
    table = str(kept_rows(np.ones((4, 3))))
    assert data_settings(windows, table) == {"data.kind": "rows", "data.path": table}
    images = from_dict({"data": {"kind": "images"}})
    assert data_settings(images, str(tmp_path)) == {"data.path": str(tmp_path)}
    assert data_settings(speech, "built-in speech") == {"data.path": "built-in speech"}
    assert data_settings(speech, None) == {}


def test_a_recipe_has_the_settings_that_are_given() -> None:
    name, config = configured("mnist-vae", rows(), {"model.likelihood": "gaussian"})
    assert (name, config.data.kind, config.model.likelihood) == ("mnist-vae", "rows", "gaussian")
    assert configured(config, None, {"train.epochs": 3})[1] == config.with_("train", epochs=3)
    assert configured(TINY, None, {})[1] == from_dict(TINY)


def test_a_number_of_trials_that_is_none_is_refused_before_anything_is_replaced(
    tmp_path: Path,
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    numbers: tuple[Any, ...] = (0, 1.5)
    for trials in numbers:
        with pytest.raises(Refusal, match="trials: "):
            distvae.tune("demo", trials=trials, out=tmp_path / "sweep", force=True)
    assert (tmp_path / "sweep" / "sweep.json").exists()


@pytest.mark.slow
def test_a_training_gives_what_the_command_writes_and_is_continued_by_its_folder() -> None:
    settings: dict[str, Plain] = {"train.schedule": "constant", "train.sinks": ["tensorboard"]}
    training = distvae.train(TINY, settings=settings, out="run")
    assert training.figures == json.loads(Path("run/evaluation/test/summary.json").read_text())
    assert training.folder == Path("run")
    assert Path("run/record.json").is_file()
    assert list(Path("run/tensorboard").glob("events.*"))
    page = training._repr_html_()
    assert page.count("data:image/") == len(list(Path("run").rglob("*.png"))) > 0
    for name in training.figures:
        assert f"<td>{name}</td>" in page
    with pytest.raises(Refusal, match="exists"):
        distvae.train(TINY, out="run")
    again = distvae.train("run", settings={"train.epochs": 3}, resume=True)
    assert again.folder == Path("run")
    assert [epoch["epoch"] for epoch in again.run.epochs()] == [1, 2, 3]


@pytest.mark.slow
def test_a_training_on_an_array_is_evaluated_on_rows_left_out() -> None:
    training = distvae.train(TINY, rows(), out="run")
    assert training.figures["rows"] == 5
    assert training.run.config.data.kind == "rows"


@pytest.mark.long
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


@pytest.mark.parametrize("package", [distvae.train, distvae.tune])
def test_a_package_that_is_called_has_the_signature_of_its_function(package: object) -> None:
    name = str(vars(package)["__name__"]).rpartition(".")[2]
    described = getattr(interactive, name)
    assert inspect.signature(package) == inspect.signature(described)  # type: ignore[arg-type]
