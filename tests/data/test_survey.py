"""`distvae data check`: what is recognised, what is wrong, the exit code, and the next command."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from distvae.cli import app
from distvae.config import RowsData, schema
from distvae.data import open_dataset
from distvae.data.dataset import BUILT_IN
from distvae.data.family import survey
from distvae.data.signals import PICTURE, SOUND
from distvae.files.refusal import Refusal
from distvae.train.session import fit
from tests import tiny
from tests.called import Called
from tests.data.conftest import Write
from tests.slowly import slow


def checked(path: Path | str, *settings: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the command, and what it says as JSON."""
    done = CliRunner().invoke(app, ["data", "check", str(path), *settings, "--json"])
    return done.exit_code, json.loads(done.stdout)


def next_line(path: Path | str, *settings: str) -> str:
    """The command with which a check says to go on."""
    done = CliRunner().invoke(app, ["data", "check", str(path), *settings])
    label, line = done.stdout.splitlines()[-1].split(maxsplit=1)
    assert label == "next:"
    return line


@pytest.mark.parametrize("path", [*slow(BUILT_IN), PICTURE, SOUND])
def test_what_is_built_in_is_as_it_should_be(path: str) -> None:
    code, found = checked(path)
    assert code == found["exit_code"] == 0
    assert (found["wrong"], found["unreadable"]) == ([], [])
    assert found["kind"] == ("speech" if "speech" in path else "patches")


def test_data_that_need_no_package_are_recognised_beside_a_broken_one(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a/1.wav", np.ones(8000) / 2, rate=8000)
    point = EntryPoint("mine", "there_is_no_such_module", "distvae.data")
    monkeypatch.setattr(schema, "entry_points", lambda group: [point])
    done = CliRunner().invoke(app, ["data", "check", str(root)])
    assert "speakers: " in done.stdout
    assert "distvae: entry point 'mine = there_is_no_such_module' in [distvae.data]" in done.stderr
    assert "its data are not recognised" in done.stderr


def test_what_lies_elsewhere_is_brought_here_and_named_as_given(
    root: Path, write: Write, cache: Path
) -> None:
    write("a/1.wav", np.ones(8000) / 2, rate=8000)
    here, there = checked(root)[1], checked(f"file://{root}")[1]
    assert there == here | {"path": f"file://{root}"}
    assert f"--data file://{root}" in next_line(f"file://{root}")
    assert survey(f"file://{root}/a/1.wav").layout == "a sound"
    with pytest.raises(Refusal, match=r"recordings/b: .*No such file or directory; a folder or"):
        survey(f"file://{root}/b")


def test_recordings_are_counted_and_timed_and_what_is_wrong_is_named(
    root: Path, write: Write
) -> None:
    for name, seconds in {"train/a/1": 1, "train/a/2": 2, "val/b/1": 1, "test/c/1": 1}.items():
        write(f"{name}.wav", np.ones(8000 * seconds) / 2, rate=8000)
    code, found = checked(root)
    assert code == 0
    expected = {"recordings": 2, "speakers": 1, "hours": pytest.approx(3 / 3600)}
    assert found["splits"]["train"] == expected
    assert found["facts"] == {"speakers": 3, "rates": {"8000": 4}}
    output = CliRunner().invoke(app, ["data", "check", str(root)]).stdout
    assert "rates:          8000 (4)" in output
    assert f"next:           distvae train speech --data {root}" in output
    write("test/a/2.wav", np.full(511, 0.1), rate=8000)
    code, found = checked(root)
    assert code == 1
    speaker, short = found["wrong"]
    assert speaker.startswith("speaker 'a' is in test and in train; one split per speaker")
    assert short.startswith("1 recording shorter than a window of 1024 samples at 16,000 Hz")
    assert short.endswith("test/a/2.wav")


def test_settings_that_are_advised_are_obeyed_and_passed_on(root: Path, write: Write) -> None:
    for k in range(6):
        write(f"spk{k % 3}_{k}.wav", np.ones(8000) * (k + 1) / 8)
    assert checked(root)[0] == 1
    pattern = r"data.speakers=pattern:(spk\d)_"
    code, found = checked(root, pattern)
    assert (code, found["wrong"], found["facts"]["speakers"]) == (0, [], 3)
    (root / "spk2_8.wav").write_bytes(b"no sound")
    assert checked(root, pattern)[0] == 2
    code, found = checked(root, pattern, "data.skip_broken=true")
    assert (code, found["facts"]["left out"]) == (0, "1 broken file skipped: spk2_8.wav")
    line = next_line(root, pattern, "data.skip_broken=true")
    assert line.endswith(f"--data {root} '{pattern}' data.skip_broken=true")


@pytest.mark.parametrize(
    ("name", "word", "says"),
    [
        ("a", "train.epochs=3", "train.epochs: settings of the data"),
        ("a", "data.speeker=1", "no such field of data.kind 'speech'; did you mean 'speakers'"),
        ("b.npy", "data.noise=3", "data.noise: no such field of data.kind 'rows'"),
    ],
)
def test_other_settings_are_refused(
    root: Path, write: Write, name: str, word: str, says: str
) -> None:
    write("a/a/1.wav", np.ones(8000) / 2)
    np.save(root / "b.npy", np.ones((5, 3)))
    done = CliRunner().invoke(app, ["data", "check", str(root / name), word])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_table_is_examined_and_its_next_command_trains_on_it(root: Path) -> None:
    write_table(root)
    code, found = checked(root / "a.parquet")
    assert (code, found["facts"]) == (0, {"rows": 200, "values": 3})
    assert next_line(root / "a.parquet") == f"distvae train table --data {root}/a.parquet"


def test_pictures_are_counted_by_size_and_the_damaged_named(root: Path) -> None:
    for k, side in enumerate((4, 4, 4, 6)):
        (root / f"class{k % 2}").mkdir(exist_ok=True)
        Image.new("L", (side, 3)).save(root / f"class{k % 2}" / f"{k}.png")
    code, found = checked(root)
    assert code == 0
    assert found["facts"] == {
        "sizes": 2,
        "most frequent": {"3 x 4": 3, "3 x 6": 1},
        "grey": 4,
        "classes": 2,
    }
    assert found["splits"] == {"train": {"images": 3}, "test": {"images": 1}}
    size = "'data.size=[3,4]'"
    assert next_line(root).endswith(f"--data {root} {size}")
    given = next_line(root, "data.size=[2,2]")
    assert given.endswith("'data.size=[2,2]'")
    assert size not in given
    (root / "class0" / "8.png").write_bytes(b"")
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(root / "class0" / "9.png")
    code, found = checked(root)
    assert code == 2
    assert len(found["unreadable"]) == 2
    assert "9.png: a picture of more than 8 bits; 8 expected" in found["unreadable"][1]


def test_a_name_that_is_no_text_is_refused(root: Path) -> None:
    path = root / os.fsdecode(b"ann\xe9/1.wav")
    path.parent.mkdir()
    path.touch()
    with pytest.raises(Refusal, match=r"'ann\\udce9/1\.wav': a name that is not in UTF-8; rename"):
        survey(str(root))


NO_DATA = {
    "gone": "no such file or folder; data, or 'built-in speech'",
    "empty": "no data known here; recordings, idx files",
    "table.csv": "table.csv: cannot be read (CSV parse error",
    "text.txt": "'.txt' is no kind of file read here",
    "run": "run: the folder of a run; the data to train on expected",
}


def test_what_is_no_data_is_refused(root: Path) -> None:
    (root / "empty").mkdir()
    list(fit(tiny.config(), tiny.dataset(), root / "run"))
    (root / "text.txt").write_text("text")
    (root / "table.csv").write_text("1,2,3")
    for name, words in NO_DATA.items():
        with pytest.raises(Refusal) as refusal:
            survey(str(root / name))
        assert words in str(refusal.value)


CHANCE = np.random.default_rng(0)
BRIEF = "train.epochs=1 train.device=cpu"


def write_recordings(folder: Path) -> None:
    for speaker in range(12):
        noise = 0.1 * CHANCE.standard_normal(16000)
        soundfile.write(folder / f"spk{speaker}_a b.wav", noise, 16000)


def write_pictures(folder: Path, *sides: int) -> None:
    for k, side in enumerate(sides):
        pixels = CHANCE.integers(0, 256, (side, side + 2, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")


def write_archive(folder: Path) -> None:
    images = CHANCE.integers(0, 256, (40, 6, 6), np.uint8)
    np.savez(folder / "a.npz", x_train=images, x_test=images[:8])


def write_table(folder: Path) -> None:
    frame = pd.DataFrame(100 * CHANCE.normal(size=(200, 3)), columns=["a", "b", "c"])
    frame.to_parquet(folder / "a.parquet", index=False)


DATA: dict[str, Callable[[Path], object]] = {
    r"'data.speakers=pattern:(spk\d+)_'": write_recordings,
    "large": lambda folder: write_pictures(folder, *[200] * 12),
    "a.npz": write_archive,
    "a.parquet": write_table,
    "spk0_a b.wav": write_recordings,
}
LONG = ("large", "a.npz", "a.parquet", "spk0_a b.wav")
"""Cases whose commands are like the commands of another case."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long if case in LONG else []) for case in DATA]
)
def test_every_next_command_works_as_printed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shell, with blanks in the names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    folder = tmp_path / "my data"
    folder.mkdir()
    DATA[case](folder)
    path, settings = (folder, case) if case.startswith("'") else (folder / case, "")
    if not path.exists():
        path = folder
    done: list[str] = []
    todo = f"data check '{path}' {settings}"
    while not done or done[-1].split()[0] in ("data", "ingest"):
        command = ["bash", "-c", f"distvae {todo}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        done.append(todo)
        assert ran.returncode == 0, f"distvae {todo}: {ran.stderr}"
        if todo.startswith("data"):
            todo = ran.stdout.splitlines()[-1].split("distvae ", 1)[1]
            todo += f" {BRIEF}" if not todo.startswith("ingest") else ""
        elif todo.startswith("ingest"):
            todo = "data check rows"
    assert done[-1].split()[0] in ("train", "denoise")


def test_a_folder_of_tables_is_ingested_and_trained_on_by_the_command_that_is_printed(
    tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    for name in "ab":
        np.save(tmp_path / "tables" / f"{name}.npy", np.random.default_rng(0).random((30, 4)))
    code, out, _ = call("data", "check", "tables")
    assert code == 0
    ingested, trained = out.partition("next:")[2].split("&&")
    assert call(*shlex.split(ingested)[1:])[0] == 0
    assert shlex.split(trained) == ["distvae", "train", "table", "--data", "rows"]
    assert open_dataset(RowsData(path="rows"), quiet=True).dims == 4


def test_a_table_is_checked_under_the_settings_that_are_advised(
    tmp_path: Path, call: Called
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("name,a,b\n" + "".join(f"n{i},{i},{2 * i}\n" for i in range(9)))
    code, _, said = call("data", "check", str(table))
    assert code == 2
    advised = said.partition("to take the others: ")[2].split(",")[0:2]
    word = shlex.split(",".join(advised))[0]
    assert word == "data.columns=[a,b]"
    code, out, _ = call("data", "check", str(table), word)
    assert code == 0
    assert out.endswith(f"next:           distvae train table --data {table} '{word}'\n")
