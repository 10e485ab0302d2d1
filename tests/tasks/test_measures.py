"""Measures in `eval.metrics` besides the measures of recordings, and refused measures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distvae import cli
from distvae.config import from_dict
from distvae.config.train import ModelMeasure, RecordingMeasure
from distvae.files.refusal import Refusal
from distvae.tasks.evaluate import score_run
from distvae.tasks.measures import (
    MEASURES,
    Labelled,
    Subject,
    refuse_impossible_measures,
)
from distvae.tasks.scores import recording_metrics
from distvae.train.run import Run

CLASSES, SIDE = 3, 6
PROBES = ("probe_linear", "probe_sgd", "probe_mlp")


def asking(run: Run, **settings: Any) -> Run:
    """The same run, judged otherwise."""
    other = Run.open(run.path)
    other.config = run.config.with_("eval", **settings)
    return other


def archive(path: Path, label: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Images of three levels of grey under a little noise, labelled by a function of the level."""
    random, arrays = np.random.default_rng(0), dict[str, Any]()
    for split, count in {"train": 4000, "test": 400}.items():
        level = random.integers(0, CLASSES, count)
        noise = random.integers(0, 30, (count, SIDE, SIDE))
        arrays[f"x_{split}"] = (100 * level[:, None, None] + noise).astype(np.uint8)
        arrays[f"y_{split}"] = label(level)
    np.savez(path, **arrays)
    return path


def on(run: Run, path: Path, **settings: Any) -> Run:
    """The same run, judged on an archive."""
    other = asking(run, **settings)
    other.config = replace(
        other.config, data=from_dict({"data": {"kind": "images", "path": str(path)}}).data
    )
    return other


def test_every_name_of_the_configuration_has_its_measure() -> None:
    assert set(get_args(ModelMeasure)) == set(MEASURES)
    assert recording_metrics(get_args(RecordingMeasure)) == get_args(RecordingMeasure)
    assert not recording_metrics(list(MEASURES))


def test_the_summary_has_what_was_asked_for_and_nothing_else(image_run: Run) -> None:
    names = ["iw_bound", "probe_linear"]
    plain, asked = (
        score_run(image_run).summary,
        score_run(asking(image_run, metrics=names, labels=50)).summary,
    )
    assert set(asked) - set(plain) == {"iw_bound", "iw_bound_row_std", "probe_linear"}
    assert {name: asked[name] for name in plain} == plain
    assert asked["iw_bound"] > plain["bound"] - 1


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_tells_clusters_apart(image_run: Run, name: str) -> None:
    random, subject = np.random.default_rng(0), Subject(image_run, "test")
    labels = random.integers(0, CLASSES, 3000)
    codes = (3 * np.eye(CLASSES)[labels] + random.normal(size=(3000, CLASSES)) / 2).astype(
        np.float32
    )
    vars(subject)["probed"] = (
        Labelled(codes[:2000], labels[:2000]),
        Labelled(codes[2000:], labels[2000:]),
    )
    assert MEASURES[name].measure(subject)[name] > 0.99


@pytest.mark.parametrize(("split", "judged"), [("train", 3900), ("test", 400), ("all", 4300)])
def test_no_labelled_data_point_is_judged(
    image_run: Run, tmp_path: Path, split: str, judged: int
) -> None:
    path = archive(tmp_path / "rows.npz", np.copy)
    known, held = Subject(on(image_run, path, labels=100), split).probed
    assert (len(known.codes), len(held.codes)) == (100, judged)
    assert not {code.tobytes() for code in known.codes} & {code.tobytes() for code in held.codes}


def test_codes_are_what_was_asked_for(image_run: Run, bars_run: Run) -> None:
    for run, kinds in ((image_run, ("mean", "gated", "binary")), (bars_run, ("mean", "binary"))):
        rows = Subject(run, "test").rows[:20]
        found = {kind: Subject(asking(run, codes=kind), "test").encoded(rows) for kind in kinds}
        assert set(np.unique(found["binary"])) <= {0.0, 1.0}
        np.testing.assert_array_equal(found[kinds[-2]], run.encode(rows))
        if "gated" in kinds:
            gamma = run.posterior(torch.tensor(rows)).gamma  # type: ignore[attr-defined]
            np.testing.assert_allclose(
                found["gated"], found["mean"] * gamma.detach().numpy(), rtol=1e-6
            )


BARS = {"data": {"kind": "bars"}}
TVAE = {"model": {"kind": "tvae"}}


@pytest.mark.parametrize(
    ("tree", "name", "reason"),
    [
        (BARS | TVAE, "iw_bound", "iw_bound needs an encoder .* the tighter"),
        (BARS | TVAE, "probe_linear", "probe_linear needs the class .* data.kind 'bars' has none"),
        ({}, "probe_mlp", "data.kind 'speech' has none"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    tree: dict[str, Any], name: str, reason: str
) -> None:
    with pytest.raises(Refusal, match=f"eval.metrics: .*{reason}"):
        refuse_impossible_measures(from_dict(tree | {"eval": {"metrics": [name]}}))


def test_images_without_classes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 4, 4), np.uint8))
    settings = ["data.kind=images", "eval.metrics=[probe_linear]", "train.epochs=1", "--no-track"]
    out = tmp_path / "run"
    words = ["train", "mnist-vae", "--data", str(tmp_path / "x.npz"), "--out", str(out), *settings]
    said = CliRunner().invoke(cli.app, words)
    assert said.exit_code == 2
    assert "the class of every data point" in said.stderr
    assert not out.exists()


def test_labels_that_leave_nothing_to_judge_are_refused(image_run: Run) -> None:
    with pytest.raises(Refusal, match=r"eval\.labels: 5000, and split 'train' has 96"):
        score_run(asking(image_run, metrics=["probe_linear"]), "train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 1, 1, 2, 2], "eval.labels: 6 of 3 classes, 2 of the rarest, .*; more than 20, two"),
    ],
)
def test_too_few_labels_to_stop_early_on_are_refused(
    image_run: Run, labels: list[int], message: str
) -> None:
    subject = Subject(image_run, "test")
    known = Labelled(np.ones((len(labels), 2), np.float32), np.array(labels))
    vars(subject)["probed"] = known, known
    with pytest.raises(Refusal, match=message):
        MEASURES["probe_mlp"].measure(subject)
