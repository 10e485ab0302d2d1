"""TensorBoard beside MLflow: its files, read by its own reader."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from distvae.config import Config
from distvae.files import program as packages
from distvae.files.refusal import Refusal
from distvae.track import Tracker, refuse_missing_packages
from tests.called import Called
from tests.track.records import runs, steps, train

READER = "tensorboard.backend.event_processing.event_accumulator"


def watched(root: Path) -> Tracker:
    (root / "one").mkdir(exist_ok=True)
    config = Config().with_("train", sinks=("tensorboard",))
    return Tracker.open(config, "speech-vae", root / "one", "here", root=root)


def readers(folder: Path) -> list[Any]:
    accumulator = pytest.importorskip(READER, reason="no tensorboard here")
    files = sorted(folder.glob("events.*"))
    return [accumulator.EventAccumulator(str(file)).Reload() for file in files]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The figures in a folder by name, each with its steps and values."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for reader in readers(folder):
        for tag in reader.Tags()["scalars"]:
            found[tag] += [(event.step, event.value) for event in reader.Scalars(tag)]
    return found


def test_tensorboard_reads_each_epoch_once_and_the_settings(root: Path) -> None:
    """A process that died had not shown the third epoch."""
    train(watched(root), 1, 2)
    lines = (root / "one" / "epochs.jsonl").read_text().splitlines()
    third = json.dumps(json.loads(lines[-1]) | {"epoch": 3})
    (root / "one" / "epochs.jsonl").write_text("\n".join([*lines, third]) + "\n")
    again = watched(root)
    train(again, 4, val_bound=-4.0)
    again.figures({"kl": 2.5})
    again.close()
    found = points(root / "one/tensorboard")
    assert found["bound/val_bound"] == [(1, -2.5), (2, -2.5), (3, -2.5), (4, -4.0)]
    assert found["bound/kl"] == [(0, 2.5)]
    assert "bound/val_kl" not in found  # which is not a number
    (reader,) = readers(root / "one/tensorboard")
    (event,) = reader.Tensors("settings/text_summary")
    assert "model.kind" in event.tensor_proto.string_val[0].decode()


def test_a_sink_that_fails_is_told_of_once_and_disturbs_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboardX", reason="no tensorboardX here")
    record = watched(root)
    (root / "one" / "tensorboard").write_text("no folder")
    train(record, 1, 2)
    record.close()
    assert capsys.readouterr().err.count("one: writing for tensorboard in") == 1
    assert [steps(root, run) for run in runs(root)] == [[1, 2]]


def test_a_sink_whose_package_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_missing_packages([])
    monkeypatch.setattr(packages, "is_installed", {}.get)
    with pytest.raises(
        Refusal, match=r"train\.sinks: 'tensorboard' needs the package tensorboardX"
    ):
        refuse_missing_packages(["tensorboard"])


def test_an_unknown_sink_is_refused(call: Called) -> None:
    code, _, err = call("train", "bars", "train.sinks=[tensorbord]", "--quiet")
    assert code == 2
    assert "train.sinks" in err
