"""The folder of a stranger reads, writes and shows nothing of the user.

A run, a sweep or a folder of rows may come from anyone. Names that its files hold may lead out of
it, and so may links.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.data.ingest import Division, digest, ingest
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import parse_json, path_inside, refuse_strange_entries
from distvae.share import card_text
from distvae.track import Store, Tracker
from distvae.track.tracker import RECORD, Sender, read_record, write_document
from distvae.train.session import fit
from distvae.tune.folder import SWEEP_FILE
from tests.called import Called
from tests.report import folders

SECRET = b"password of the user"
FILES = ("run.json", "best.json", "last.json")
ESCAPE = "\x1b]0;title\x07"
TREE = {
    "data": {"kind": "bars", "rows": 40, "size": 3},
    "model": {"kind": "tvae", "latent": 4, "hidden": [4]},
    "estep": {"kind": "evolution", "states": 4, "parents": 2, "children": 1, "generations": 1},
    "train": {"epochs": 1, "device": "cpu", "threads": 1, "schedule": "constant"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, a sweep and rows, as a stranger may give them away."""
    here = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(here)
        config = from_dict(TREE)
        run = here / "run"
        list(fit(config, open_dataset(config.data, quiet=True), run, recipe="bars"))
        (run / "evaluation" / "test").mkdir(parents=True)
        (run / "evaluation" / "test" / "summary.json").write_text('{"hoyer": 0.5}')
        about = "others", "run", {"model.kind": "tvae"}, {"kind": "run"}
        tracker = Tracker(run, None, *about, here)
        tracker.files([run / "best.json"], "best")
        tracker.findings("")
        tracker.best(run / "evaluation", "")
        tracker.close()
        list(Sender(Store.find(here / "runs"), run).send())
        folders.sweep(here / "sweep")
        np.save(here / "x.npy", np.ones((20, 3), np.float32))
        ingest([here / "x.npy"], here / "rows", Division())
    return here


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder of the user."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    (folder / "run.json").write_bytes(SECRET)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def holds_secret(folder: Path) -> list[Path]:
    """Return the files below a folder that have the secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if SECRET in path.read_bytes()]


# --- one function for every name

names = st.one_of(
    st.text(max_size=8),
    st.lists(st.sampled_from(["..", ".", "a", "", "b c", "~"]), min_size=1).map("/".join),
    st.sampled_from(["/etc/passwd", "a\x1b", "a\nb", "\ud800", "a\0"]),
    st.none() | st.integers() | st.lists(st.text()),
)


@given(names)
def test_a_name_leads_into_its_folder_or_is_refused_and_one_of_a_run_is_plain(name: Any) -> None:
    folder = Path("/some/folder")
    with suppress(Refusal):
        path = path_inside(folder, name)
        assert os.path.normpath(path).startswith("/some/folder")
        assert os.path.normpath(path) == str(path)
        assert not re.search("[\x00-\x1f\x7f-\x9f]", str(path))
    with suppress(Refusal):
        assert Path(Folder(folder).path_of(name)).parent == folder


def test_links_and_pipes_are_found_however_deep(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    (folder / "file").touch()
    (folder / "deep" / "inner").symlink_to("../file")
    refuse_strange_entries(folder)
    for target in (outside, outside / "secret", "../../home/secret", "/dev/zero", "link"):
        (folder / "deep" / "link").symlink_to(target)
        with pytest.raises(Refusal, match="deep/link: a link"):
            refuse_strange_entries(folder)
        (folder / "deep" / "link").unlink()
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(Refusal, match="deep/pipe: a named pipe"):
        refuse_strange_entries(folder)


# --- every text of every document replaced, for every command


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all texts in a document."""
    if isinstance(tree, str):
        yield path
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: str) -> Any:
    """Return a document with another text at a path."""
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value) if path[1:] else value
    return copy


def documents(made: Path) -> list[tuple[str, int, tuple[Any, ...]]]:
    """Return all texts: the file, the line, and the path in the document of that line."""
    files = [f"run/{name}" for name in (*FILES, "record.json", "mlflow.json")]
    found: list[tuple[str, int, tuple[Any, ...]]] = [("run/run.json", -1, ("storage",))]
    for file in [*files, f"sweep/{SWEEP_FILE}", "rows/rows.json"]:
        found += [(file, -1, path) for path in leaves(json.loads((made / file).read_text()))]
    return found


def damage(file: Path, line: int, path: tuple[Any, ...], value: str) -> None:
    """Replace a text in a document, and update the digest to the new content."""
    if line < 0:
        tree = replaced(json.loads(file.read_text()), path, value)
        if file.name == "rows.json":
            tree["digest"] = digest(tree)
        file.write_text(json.dumps(tree))
        return
    lines = file.read_text().splitlines()
    lines[line] = json.dumps(replaced(json.loads(lines[line]), path, value))
    file.write_text("\n".join(lines) + "\n")


COMMANDS = {
    "run": [
        "show run",
        "push run pushed",
        "encode run bars -o codes.parquet",
        "report run",
        "evaluate run --force --quiet",
        "runs --send run",
        "train run --resume --quiet",
    ],
    "sweep": ["report sweep", "tune other.yaml --out sweep --resume"],
    "rows": ["data check rows", "train rows.yaml --quiet"],
}
SPACE = """
base: bars
metrics: {hoyer: max}
trials: 1
axes: [{key: model.latent, choice: [2]}]
"""
ROWS = """
data: {kind: rows, path: rows}
model: {kind: vae, latent: 2, hidden: [2], likelihood: gaussian}
estep: {input: standard, hidden: [2]}
train: {epochs: 1, device: cpu}
"""


def names_of(outside: Path) -> list[str]:
    """Return names by which a file or a folder of the user may be reached."""
    up = [f"../{'../' * depth}home/{name}" for depth in range(3) for name in ("secret", "")]
    return [str(outside), str(outside / "secret"), *up, "link", "folder", f"a{ESCAPE}"]


@pytest.mark.parametrize(
    ("examples", "every"),
    [
        pytest.param(24, False, marks=pytest.mark.slow),
        pytest.param(90, True, marks=pytest.mark.long),
    ],
)
@pytest.mark.slow
def test_no_text_of_a_document_reaches_the_user(
    examples: int,
    every: bool,
    made: Path,
    outside: Path,
    tmp_path: Path,
    call: Called,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @settings(max_examples=examples)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        """Replace a text of a document by the name of something else, and run one command or every
        command on it.
        """
        file, line, path = data.draw(st.sampled_from(documents(made)))
        value = data.draw(st.sampled_from(names_of(outside)))
        kind = file.partition("/")[0]
        commands = COMMANDS[kind] if every else [data.draw(st.sampled_from(COMMANDS[kind]))]
        here = shutil.copytree(made, Path(mkdtemp(dir=tmp_path)), dirs_exist_ok=True)
        monkeypatch.chdir(here)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (here / "other.yaml").write_text(SPACE)
        (here / "rows.yaml").write_text(ROWS)
        damage(here / file, line, path, value)
        for name, target in {"link": outside / "secret", "folder": outside}.items():
            if value == name:
                (here / kind / name).symlink_to(target)
        before = content(outside)
        for command in commands:
            code, out, err = call(*command.split())
            assert code in (0, 1, 2), err
            assert "Traceback" not in err
            assert SECRET.decode() not in out + err
            assert "\x1b" not in out + err, command
        assert content(outside) == before
        for name in ("link", "folder"):
            (here / kind / name).unlink(missing_ok=True)
        assert not holds_secret(here)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(here)

    check()


# --- each hole as it was found


def test_a_direction_that_is_none_is_refused(call: Called, tmp_path: Path, outside: Path) -> None:
    folders.sweep(tmp_path / "sweep")
    file = tmp_path / "sweep" / SWEEP_FILE
    facts = json.loads(file.read_text())
    facts["metrics"] = dict.fromkeys(facts["metrics"], str(outside))
    file.write_text(json.dumps(facts))
    code, out, err = call("report", str(tmp_path / "sweep"))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "max or min expected" in err


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shutil.copytree(made / "run", tmp_path / "runs" / "run")


def tell(run: Path, **info: Any) -> None:
    """Change what `run.json` says of a run."""
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | info))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("files", "../home/secret"),
        ("below", "{outside}/secret"),
        ("best", "link"),
        ("tensors", "../home/secret"),
    ],
)
@pytest.mark.slow
def test_a_record_sends_nothing_from_outside(
    run: Path, outside: Path, key: str, name: str, call: Called
) -> None:
    (run / "link").symlink_to(outside / "secret")
    name = name.format(outside=outside)
    record = read_record(run)
    if key == "files":
        record["files"] = {name: "stolen"}
    elif key == "below":
        record["files"] = {"best.json": name}
    elif key == "best":
        record["best"] = {"folder": name, "name": "stolen"}
    else:
        manifest = json.loads((run / "best.json").read_text())
        (run / "best.json").write_text(json.dumps(manifest | {"tensors": name}))
    write_document(run, RECORD, record)
    (run / "mlflow.json").unlink()
    before = content(outside)
    code, out, err = call("runs", "--send", str(run))
    assert (code, "Traceback" in err) == (1, False), out + err
    assert content(outside) == before
    assert not holds_secret(run.parent)


@pytest.mark.parametrize("name", ["epochs.jsonl", ".mlflow.json.lock"])
@pytest.mark.slow
def test_a_link_is_not_sent_and_not_written_through(
    run: Path, outside: Path, name: str, call: Called
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / "secret")
    before = content(outside)
    code, out, err = call("runs", "--send", str(run))
    assert (code, f"{name}: a link out of" in err) == (1, True), out + err
    assert content(outside) == before
    assert not holds_secret(run.parent)


@pytest.mark.slow
def test_a_link_inside_a_folder_is_no_file_to_send(run: Path) -> None:
    (run / "evaluation" / "a.json").symlink_to("test/summary.json")
    store = Store.find(run.parent)
    list(Sender(store, run).send())
    sent = {path.name for path in run.parent.rglob("mlartifacts/*/artifacts/**/*.json")}
    assert "summary.json" in sent
    assert "a.json" not in sent


@pytest.mark.parametrize("name", ["mlflow.json", ".mlflow.json.lock"])
@pytest.mark.slow
def test_a_link_in_the_sweep_of_a_trial_is_not_written_through(
    run: Path, outside: Path, name: str, call: Called
) -> None:
    sweep = run.parent / "sweep"
    (sweep / "trials").mkdir(parents=True)
    trial = run.rename(sweep / "trials" / "1")
    record = read_record(trial)
    write_document(sweep, RECORD, record)
    record["parent"] = str(sweep)
    write_document(trial, RECORD, record)
    (sweep / name).symlink_to(outside / "secret")
    before = content(outside)
    code, out, err = call("runs", "--send", str(trial))
    assert (code, f"{name}: a link out of" in err) == (1, True), out + err
    assert content(outside) == before


@pytest.mark.slow
def test_a_record_names_no_sweep_elsewhere(run: Path, outside: Path) -> None:
    (outside / RECORD).write_text('{"experiment": "mine", "name": "mine"}')
    record = read_record(run)
    record["parent"] = str(outside)
    write_document(run, RECORD, record)
    before = content(outside)
    sender = Sender(Store.find(run.parent), run)
    list(sender.send())
    assert "mlflow.parentRunId" not in sender.client.get_run(sender.id).data.tags
    assert content(outside) == before


@pytest.mark.parametrize("name", ["mlflow.json", "record.json"])
@pytest.mark.slow
def test_a_pipe_in_the_place_of_a_record_holds_nothing_up(
    run: Path, name: str, call: Called
) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    code, out, err = call("runs", "--send")
    assert (code, f"{name}: a named pipe" in err) == (1, True), out + err


@pytest.mark.slow
def test_a_resumed_training_writes_where_its_folder_is(
    run: Path, outside: Path, call: Called
) -> None:
    for file in ("best.json", "last.json"):
        tree = json.loads((run / file).read_text())
        names = {"tensors": "../../home/secret"}
        facts = tree["facts"] | ({"best": tree | names} if file == "last.json" else {})
        (run / file).write_text(json.dumps(tree | names | {"facts": facts}))
    code, _, err = call("train", str(run), "--resume", "train.epochs=2")
    assert (code, "is no name of a file in this folder" in err) == (2, True), err
    assert content(outside)["secret"] == SECRET


@pytest.mark.slow
def test_a_storage_that_only_the_folder_names_is_not_written_to(
    run: Path, outside: Path, call: Called
) -> None:
    tell(run, storage=f"{outside}/run")
    code, _, err = call("train", str(run), "--resume", "train.epochs=2")
    assert (code, f"--storage {outside} expected" in err) == (2, True), err
    assert content(outside) == {"secret": SECRET, "run.json": SECRET}


@pytest.mark.parametrize("name", ["epochs.jsonl", "evaluation"])
@pytest.mark.slow
def test_a_link_is_not_published(run: Path, outside: Path, name: str, call: Called) -> None:
    target = run / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    target.symlink_to(outside if name == "evaluation" else outside / "secret")
    code, _, err = call("push", str(run), "pushed")
    assert (code, f"{name}: a link out of" in err) == (2, True), err
    assert not Path("pushed").exists()


# --- what people see

TEXTS = ("recipe", "data", "unit", "begun", "commit", "data_digest")
"""What `run.json` says in words."""


def test_documents_hold_no_characters_that_a_terminal_obeys() -> None:
    tree = {f"a{ESCAPE}": [f"b{ESCAPE}", {"c": "\x9b2J \u202e"}], "d": 1}
    found = parse_json(json.dumps(tree), "run.json")
    assert found == {"a ]0;title ": ["b ]0;title ", {"c": " 2J  "}], "d": 1}


@pytest.mark.slow
def test_a_run_is_shown_without_commands_to_the_terminal(run: Path, call: Called) -> None:
    tell(run, rows={f"train{ESCAPE}": 3}, **{name: f"{name}{ESCAPE}" for name in TEXTS})
    (run / "evaluation" / f"x{ESCAPE}").mkdir()
    (run / "evaluation" / f"x{ESCAPE}" / "summary.json").write_text(f'{{"a{"b" * 3}": 1}}')
    code, out, err = call("show", str(run))
    assert code == 0, err
    assert "data ]0;title" in out
    assert "\x1b" not in out


@pytest.mark.slow
def test_a_card_shows_texts_of_a_stranger_without_markup(run: Path) -> None:
    hostile = "<img src=x> [a](https://b) `c` **d** | e"
    versions = {"distvae": hostile, hostile: "1"}
    tell(run, rows={hostile: 3}, versions=versions, **dict.fromkeys(TEXTS, hostile))
    text = re.sub(r"```.*?```", "", card_text(run), flags=re.DOTALL)
    assert "img src=x" in text
    for mark in ("<img", "[a]", "https:", "**d"):
        found = re.findall(rf"(?<!\\){re.escape(mark)}", text)
        assert not found, mark


def test_the_name_of_a_picture_is_printed_without_commands_to_the_terminal(
    tmp_path: Path, call: Called
) -> None:
    from PIL import Image

    picture = tmp_path / f"a{ESCAPE}.png"
    Image.fromarray(np.tile(np.arange(12, dtype=np.uint8), (12, 1))).save(picture)
    settings = ["train.epochs=1", "model.latent=8"]
    code, out, err = call("denoise", str(picture), str(tmp_path / "out.png"), *settings)
    assert (code, "a ]0;title .png" in err) == (0, True), err
    assert "\x1b" not in out + err
