"""A pushed model is the one that was trained, without anything about the machine; what was altered
is refused.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import distvae
from distvae import report
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.reproduce.record import add_run
from distvae.reproduce.rows import read_rows
from distvae.share.pushed import fetch, load_into, push
from tests.object_store import object_store

SECRET = "correct-horse"


@pytest.fixture
def pushed(run: Path, tmp_path: Path) -> Path:
    """Return the folder of a pushed model."""
    push(run, str(tmp_path / "pushed"))
    return tmp_path / "pushed"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def codes(place: Path | str) -> object:
    run = distvae.load(place)
    return run.encode(np.ones((3, run.dims), np.float32)).tolist()


def test_it_opens_as_the_run_that_was_trained(run: Path, pushed: Path) -> None:
    assert codes(pushed) == codes(run)
    ours, theirs = distvae.load(run), distvae.load(pushed)
    assert theirs.epochs() == ours.epochs()
    assert theirs.config.model == ours.config.model


def test_its_checksums_are_those_of_sha256sum(pushed: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=pushed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    checked = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    assert checked == contents(pushed).keys() - {"README.md", "SHA256SUMS"}


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
    push(run, str(tmp_path / "pushed"))
    everything = b"".join(contents(tmp_path / "pushed").values())
    assert distvae.load(tmp_path / "pushed").config.data.path == "corpus"
    assert distvae.load(tmp_path / "pushed").recipe == "mine"
    for word in (str(tmp_path), "private", platform.platform(), "Linux-", "flac"):
        assert word.encode() not in everything, word


def test_what_was_pushed_is_pushed_again_byte_for_byte(pushed: Path, tmp_path: Path) -> None:
    push(pushed, str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(pushed)


def test_a_copy_is_equal_also_with_an_edited_card(pushed: Path, tmp_path: Path) -> None:
    (pushed / "README.md").write_text("ours")
    load_into(str(pushed), tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(pushed)
    assert contents(fetch(str(pushed))) == contents(pushed)


@pytest.mark.parametrize("name", ["model.safetensors", "run.json", "evaluation/test/summary.json"])
def test_an_altered_file_is_refused_by_its_name(pushed: Path, tmp_path: Path, name: str) -> None:
    content = bytearray((pushed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (pushed / name).write_bytes(content)
    with pytest.raises(Refusal, match=f"{name}: altered or damaged"):
        load_into(str(pushed), tmp_path / "copy")
    with pytest.raises(Refusal, match=f"{name}: altered or damaged"):
        fetch(str(pushed))
    assert not list((tmp_path / "cache").rglob("model.safetensors"))


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "model.pkl", "a/run.json", "."])
def test_a_file_that_no_model_has_is_refused(pushed: Path, tmp_path: Path, name: str) -> None:
    with (pushed / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(b'').hexdigest()}  {name}\n")
    with pytest.raises(Refusal, match=r"SHA256SUMS: .*checksums of the files"):
        load_into(str(pushed), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_model_without_its_weights_is_refused(pushed: Path) -> None:
    lines = (pushed / "SHA256SUMS").read_text().splitlines(keepends=True)
    (pushed / "SHA256SUMS").write_text("".join(x for x in lines if "model." not in x))
    with pytest.raises(Refusal, match=r"lists no model\.safetensors"):
        fetch(str(pushed))


def test_a_folder_that_holds_no_pushed_model_is_refused(run: Path) -> None:
    for place in (run, run / "run.json", run / "nowhere"):
        with pytest.raises(Refusal, match=r"SHA256SUMS: no such file; a model that 'distvae push'"):
            fetch(str(place))


def test_what_exists_is_replaced_by_force_alone_and_only_if_it_was_pushed(
    run: Path, pushed: Path, tmp_path: Path
) -> None:
    (pushed / "mine").write_text("kept")
    (run / "evaluation" / "test" / "summary.json").unlink()
    with pytest.raises(Refusal, match=r"exists; .*--force"):
        push(run, str(pushed))
    push(run, str(pushed), force=True)
    assert (pushed / "mine").read_text() == "kept"
    assert not (pushed / "evaluation" / "test" / "summary.json").exists()
    before = contents(run)
    with pytest.raises(Refusal, match="holds no model that 'distvae push' wrote"):
        push(pushed, str(run), force=True)
    assert contents(run) == before


@pytest.mark.parametrize("written", [1, 2, 5])
def test_a_push_that_was_cut_short_is_refused_and_can_be_done_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    left = iter(range(written))
    write = Folder.write

    def write_until(folder: Folder, name: str, content: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(folder, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", write_until)
        with pytest.raises(KeyboardInterrupt):
            push(run, str(tmp_path / "cut"))
    with pytest.raises(Refusal, match="a model that 'distvae push' wrote expected"):
        load_into(str(tmp_path / "cut"), tmp_path / "copy")
    push(run, str(tmp_path / "cut"), force=True)
    push(run, str(tmp_path / "pushed"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "pushed")


def test_a_run_with_damaged_weights_is_not_pushed(run: Path, tmp_path: Path) -> None:
    for weights in run.glob("best-*"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(Refusal, match="altered or damaged"):
        push(run, str(tmp_path / "pushed"))
    assert not (tmp_path / "pushed").exists()


def test_a_uri_of_this_machine_opens_as_text_and_as_a_path(run: Path, tmp_path: Path) -> None:
    place = f"file://{tmp_path}/uri"
    push(run, place)
    assert codes(place) == codes(Path(place)) == codes(run)  # typer makes a path of it


def test_a_snapshot_in_the_hubs_cache_is_loaded(run: Path, pushed: Path, tmp_path: Path) -> None:
    model = tmp_path / "models--someone--speech"
    snapshot, blobs = model / "snapshots" / "0a1b", model / "blobs"
    shutil.copytree(pushed, snapshot)
    blobs.mkdir()
    files = [file for file in snapshot.rglob("*") if file.is_file()]
    for number, file in enumerate(files):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    assert codes(snapshot) == codes(run)
    load_into(str(snapshot), tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(pushed)
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match=r"a link out of .*; a file in it"):
        load_into(str(snapshot), tmp_path / "another")


def test_a_link_out_of_the_folder_is_refused(pushed: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    (pushed / "README.md").unlink()
    (pushed / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(Refusal, match=r"README\.md: a link out of .*; a file in it"):
        load_into(str(pushed), tmp_path / "copy")
    (pushed / "README.md").unlink()
    (pushed / "README.md").symlink_to("README.md")
    with pytest.raises(Refusal, match=r"README\.md"):
        load_into(str(pushed), tmp_path / "copy")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return the URI of a folder in a bucket."""
    with object_store(SECRET) as uri:
        yield uri


def test_a_storage_gives_back_what_was_pushed(
    run: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.replace("/runs?", f"/models/{tmp_path.name}?")
    said = distvae.push(run, place)
    assert said == f"s3://bucket/models/{tmp_path.name}"
    with pytest.raises(Refusal, match="exists") as refused:
        distvae.push(run, place)
    assert SECRET not in str(refused.value)
    distvae.push(run, place, force=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    place = place.replace(f"key:{SECRET}@", "")
    load_into(place, tmp_path / "copy")
    push(run, str(tmp_path / "pushed"))
    assert contents(tmp_path / "copy") == contents(tmp_path / "pushed")
    assert codes(place) == codes(Path(place)) == codes(run)  # typer makes a path of it
    shutil.rmtree(run)
    with pytest.raises(Refusal, match="SHA256SUMS"):
        distvae.load(place.replace("/models/", "/nothing/"))


def test_it_is_reported_and_becomes_a_row_though_its_machine_is_not_known(
    run: Path, tmp_path: Path
) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({"seconds": 1.0, "epochs": 2, **info}))
    push(run, str(tmp_path / "pushed"))
    assert report.write(tmp_path / "pushed", tmp_path / "page.html").is_file()
    add_run(tmp_path / "rows", tmp_path / "pushed", "tiny", force=False)
    (row,) = read_rows(tmp_path / "rows", "tiny")
    assert row.content["machine"] == ""
