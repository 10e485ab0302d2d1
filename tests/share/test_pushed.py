"""A pushed model equals the trained model without facts about its machine."""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import distvae
from distvae import report
from distvae.files.refusal import Refusal
from distvae.numerics.metrics import shown
from distvae.reproduce.rows import add_run, read_rows
from distvae.share import card, card_text
from tests.called import Called
from tests.share.hub_server import Hub, serving

RUNS = Path(__file__).parents[1] / "golden" / "runs-0.1.0"
MOST = 5000
"""Characters that MLflow's registry takes as a description."""
FIGURES = {"pesq_wb": 2.5, "pesq_wb_std": 0.25, "hoyer": 0.5, "stoi": None}


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a run that was evaluated."""
    folder = tmp_path / "trained here" / str(getattr(request, "param", "speech"))
    shutil.copytree(RUNS / folder.name, folder)
    (folder / "evaluation" / "test").mkdir(parents=True)
    (folder / "evaluation" / "test" / "summary.json").write_text(json.dumps(FIGURES))
    return folder


@pytest.fixture
def pushed(run: Path, tmp_path: Path) -> Path:
    """Return the folder of a pushed model."""
    distvae.push(run, tmp_path / "pushed")
    return tmp_path / "pushed"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def codes(folder: Path) -> object:
    run = distvae.load(folder)
    return run.encode(np.ones((3, run.dims), np.float32)).tolist()


@pytest.mark.parametrize("run", ["bars", "speech"], indirect=True)
def test_it_opens_as_the_run_that_was_trained_and_is_pushed_again_byte_for_byte(
    run: Path, pushed: Path, tmp_path: Path
) -> None:
    assert codes(pushed) == codes(run)
    ours, theirs = distvae.load(run), distvae.load(pushed)
    assert theirs.epochs() == ours.epochs()
    assert theirs.config.model == ours.config.model
    distvae.push(pushed, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(pushed)


def test_a_model_is_pushed_by_a_command_and_shown_as_before(
    call: Called, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    assert call("push", "speech", "pushed") == (0, "pushed\n", "")
    shown = [call("show", place)[1].splitlines()[1:] for place in ("speech", "pushed")]
    assert shown[0] == shown[1]
    for destination in ("speech", "s3://bucket/bars", "hf://bars"):
        wanted = f"distvae: {destination}: a new folder or hf://OWNER/NAME expected\n"
        assert call("push", "speech", destination) == (2, "", wanted)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, error = call("push", "speech", "hf://someone/bars")
    assert (code, error.count("\n")) == (2, 1)
    assert "needs the package huggingface_hub; pip install 'distvae[hub]' expected" in error


@pytest.mark.parametrize(("fact", "value"), [("dims", "16"), ("versions", 3)])
def test_facts_that_no_training_wrote_are_refused_in_one_line(
    call: Called, run: Path, tmp_path: Path, fact: str, value: object
) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {fact: value}))
    code, _, error = call("push", str(run), str(tmp_path / "pushed"))
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"distvae: {file}: ")
    assert fact in error


@pytest.mark.parametrize("run", ["bars", "speech"], indirect=True)
def test_it_names_no_place_and_no_machine(run: Path, tmp_path: Path) -> None:
    moved = distvae.load(run).config.data.path
    text = (run / "config.yaml").read_text()
    named = text.replace(f"path: {moved or repr('')}", f"path: {tmp_path / 'private' / 'corpus'}")
    assert named != text
    named = named.replace("mapped: null", f"mapped: {tmp_path / 'private'}")
    (run / "config.yaml").write_text(named)
    info = (run / "run.json").read_text()
    before, after = (hashlib.sha256(each.encode()).hexdigest() for each in (text, named))
    recorded = json.loads(info.replace(before, after))
    recorded["recipe"] = str(tmp_path / "private" / "mine.yaml")
    (run / "run.json").write_text(json.dumps(recorded))
    distvae.push(run, tmp_path / "pushed")
    everything = b"".join(contents(tmp_path / "pushed").values())
    assert distvae.load(tmp_path / "pushed").config.data.path == "corpus"
    assert distvae.load(tmp_path / "pushed").recipe == "mine"
    for word in (str(tmp_path), "private", platform.platform(), "Linux-", "flac"):
        assert word.encode() not in everything, word


def test_a_run_with_damaged_weights_is_not_pushed(run: Path, tmp_path: Path) -> None:
    for weights in run.glob("best-*"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(Refusal, match="altered or damaged"):
        distvae.push(run, tmp_path / "pushed")
    assert not (tmp_path / "pushed").exists()


def test_a_snapshot_in_the_hubs_cache_opens_and_other_links_are_refused(
    run: Path, pushed: Path, tmp_path: Path
) -> None:
    model = tmp_path / "models--someone--speech"
    snapshot, blobs = model / "snapshots" / "0a1b", model / "blobs"
    shutil.copytree(pushed, snapshot)
    blobs.mkdir()
    files = [file for file in snapshot.rglob("*") if file.is_file()]
    for number, file in enumerate(files):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    assert codes(snapshot) == codes(run)
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match=r"a link out of .*; a file in it"):
        distvae.load(snapshot)


def test_it_is_reported_and_becomes_a_row_though_its_machine_is_not_known(
    run: Path, tmp_path: Path
) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({"seconds": 1.0, "epochs": 2, **info}))
    distvae.push(run, tmp_path / "pushed")
    assert report.write(tmp_path / "pushed", tmp_path / "page.html").is_file()
    add_run(tmp_path / "rows", tmp_path / "pushed", "tiny", force=False)
    (row,) = read_rows(tmp_path / "rows", "tiny")
    assert row.content["machine"] == ""


def test_a_card_has_the_figures_of_the_evaluation_and_facts_about_the_run(run: Path) -> None:
    _, fields, text = card(run).split("---\n", 2)
    assert yaml.safe_load(fields)["tags"][1] == distvae.load(run).config.model.kind
    assert text.strip() == card_text(run).strip()
    assert len(text) < MOST
    info = json.loads((run / "run.json").read_text())
    for fact in (info["data"], info["data_digest"], f"{info['rows']['train']:,} train"):
        assert fact in text
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    best = max(epochs, key=lambda epoch: epoch["val_objective"])
    assert f"Bound on validation data: {shown(best['val_bound'])} nats" in text
    assert "| pesq_wb | 2.500 ± 0.250 | perceptual quality" in text
    assert "| hoyer | 0.5000 |" in text
    assert "| stoi" not in text
    assert "| pesq_wb_std" not in text


def test_the_program_in_a_card_gives_the_shapes_that_it_says(run: Path) -> None:
    """A name of data stays in its cell of the card."""
    info = json.loads((run / "run.json").read_text()) | {"data": "a | b\n# c"}
    (run / "run.json").write_text(json.dumps(info))
    (line,) = [line for line in card_text(run).splitlines() if line.startswith("| data |")]
    assert line.startswith(r"| data | a \| b # c, ")
    (program,) = re.findall(r"```python\n(.*?)```", card_text(run), re.DOTALL)
    x = np.ones((3, distvae.load(run).dims), np.float32)
    names: dict[str, Any] = {"FOLDER": str(run), "x": x}
    exec(program, names)
    shapes = re.findall(r"\(rows, (\d+)\) -> \(rows, (\d+)\)", program)
    for name, (_, width) in zip(("codes", "again"), shapes, strict=True):
        assert np.shape(names[name]) == (3, int(width))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return an empty hub, played by a server of this machine."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)  # read once from HF_ENDPOINT
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        yield server


def test_a_repository_holds_the_files_of_a_pushed_folder(run: Path, pushed: Path, hub: Hub) -> None:
    distvae.push(run, "hf://someone/model")
    assert hub.commits == 1
    assert hub.files == contents(pushed)
    hub.files["picture.png"] = b"kept"
    (run / "evaluation" / "test" / "summary.json").unlink()
    distvae.push(run, "hf://someone/model")
    assert contents(pushed).keys() - hub.files.keys() == {"evaluation/test/summary.json"}
    assert hub.files["picture.png"] == b"kept"
