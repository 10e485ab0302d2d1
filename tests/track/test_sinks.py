"""TensorBoard and Weights & Biases beside MLflow: their files, read by their own packages."""

import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.track import Tracker, refuse_missing_packages
from distvae.track import sinks as sinks_module
from distvae.track.file_sink import FileSink
from distvae.track.sender import Sender
from tests.called import Called
from tests.track.records import RECORD

Points = dict[str, list[tuple[int, float]]]
"""Figures by name, each with its steps and values."""


def tracker(root: Path, *names: str) -> Tracker:
    (root / "one").mkdir(exist_ok=True)
    config = Config().with_("train", sinks=names)
    return Tracker.open(config, "speech-vae", root / "one", "here", root=root)


def record_and_resume(root: Path, name: str) -> None:
    """Record three epochs, and in a second process two more, of which one is repeated."""
    first = tracker(root, name)
    for number in (1, 2, 3):
        first.epoch(replace(RECORD, epoch=number, val_bound=-float(number)))
    first.close("KILLED")
    again = tracker(root, name)
    for number in (3, 4):
        again.epoch(replace(RECORD, epoch=number, val_bound=-float(number)))
    again.figures({"kl": 2.5})
    again.close()


BOUNDS = [(1, -1.0), (2, -2.0), (3, -3.0), (4, -4.0)]


def tensorboard_points(folder: Path) -> Points:
    """What the reader of TensorBoard finds in a folder."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard here"
    )
    found: Points = defaultdict(list)
    for file in sorted(folder.glob("events.*")):
        reader = event_accumulator.EventAccumulator(str(file)).Reload()
        for tag in reader.Tags()["scalars"]:
            found[tag] += [(event.step, event.value) for event in reader.Scalars(tag)]
    return {tag: sorted(points) for tag, points in found.items()}


def test_tensorboard_reads_each_epoch_once(root: Path) -> None:
    record_and_resume(root, "tensorboard")
    found = tensorboard_points(root / "one/tensorboard")
    assert found["bound/val_bound"] == BOUNDS
    assert found["bound/kl"] == [(0, 2.5)]
    assert "bound/val_kl" not in found  # which is not a number


def test_tensorboard_has_the_settings(root: Path) -> None:
    record_and_resume(root, "tensorboard")
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard here"
    )
    texts = []
    for file in (root / "one/tensorboard").glob("events.*"):
        reader = module.EventAccumulator(str(file)).Reload()
        for tag in reader.Tags()["tensors"]:
            texts += [event.tensor_proto.string_val[0] for event in reader.Tensors(tag)]
    (text,) = texts
    assert b"| train.epochs | 30 |" in text


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a file of Weights & Biases, which has the form of LevelDB's logs."""
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (room := 2**15 - place % 2**15) < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if not kind:
            place += room
            continue
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def wandb_records(folder: Path) -> list[Any]:
    """The records in the files of a folder, decoded by the package, once all runs have ended."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="no wandb here")
    while True:  # the service of the package writes a little later than `finish` returns
        files = [
            [messages.Record.FromString(content) for content in records_of(file)]
            for file in sorted(folder.glob("offline-run-*/run-*.wandb"))
        ]
        if all(any(record.HasField("exit") for record in records) for records in files):
            return [record for records in files for record in records]
        time.sleep(0.1)


def test_weights_and_biases_reads_each_epoch_once_of_one_run(root: Path) -> None:
    pytest.importorskip("wandb", reason="no wandb here")
    record_and_resume(root, "wandb")
    records = wandb_records(root / "one/wandb")
    bounds, summary = [], {}
    for record in records:
        items = {"/".join(item.nested_key): item.value_json for item in record.history.item}
        if "bound/val_bound" in items:
            bounds.append((int(items["_step"]), float(items["bound/val_bound"])))
        for item in record.summary.update:
            summary[item.key or "/".join(item.nested_key)] = item.value_json
    assert bounds == BOUNDS
    assert float(summary["bound/kl"]) == 2.5
    (identity,) = {record.run.run_id for record in records if record.HasField("run")}
    assert identity


def test_a_run_without_sinks_writes_for_none(root: Path) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    record.close()
    assert {path.name for path in (root / "one").iterdir() if path.is_dir()} == set()


class Failing(FileSink):
    """A sink whose disk is full."""

    name = "tensorboard"
    package = "numpy"

    def write(self, figures: object, epoch: int, when: float) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_sink_that_fails_is_told_of_once_and_disturbs_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sinks_module.CLASSES, "tensorboard", Failing)
    record = tracker(root, "tensorboard")
    for number in (1, 2):
        record.epoch(replace(RECORD, epoch=number))
    record.close()
    said = capsys.readouterr().err
    assert said.count("one: writing for tensorboard fails: [Errno 28] No space left on device") == 1
    assert record.complete


def test_a_sink_whose_package_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_missing_packages([])
    monkeypatch.setattr(Failing, "package", "no_such_package_anywhere")
    monkeypatch.setitem(sinks_module.CLASSES, "tensorboard", Failing)
    with pytest.raises(Refusal, match=r"train\.sinks: 'tensorboard' needs the package no_such_"):
        refuse_missing_packages(["tensorboard"])


def test_an_unknown_sink_is_refused(call: Called) -> None:
    code, _, err = call("train", "bars", "train.sinks=[tensorbord]", "--quiet")
    assert code == 2
    assert "train.sinks" in err


def test_mlflow_is_a_sink_too(root: Path) -> None:
    record = tracker(root)
    assert record.store is not None
    sink = Sender(record.store, record.folder)
    record.begin()
    assert sink.send()


@pytest.mark.slow
def test_training_writes_for_tensorboard_and_continues_its_files(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: Called
) -> None:
    monkeypatch.chdir(root)
    words = ["train", "bars", "data.rows=200", "--out", "run", "--quiet", "--no-evaluate"]
    words += ["train.schedule=constant"]
    assert call(*words, "train.epochs=2", "train.sinks=[tensorboard]")[0] == 0
    assert call(*words, "train.epochs=3", "train.sinks=[tensorboard]", "--resume")[0] == 0
    found = tensorboard_points(root / "run/tensorboard")
    assert [step for step, _ in found["bound/val_bound"]] == [1, 2, 3]
