"""A sweep whose trials an object store keeps is the sweep of one disk, also on another machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.tune.mirror import Mirror
from tests.object_store import object_store
from tests.tune.sweeps import assert_whole

Steady = tuple[list[str], dict[int, Any]]

NAMES = st.sampled_from(["a", "b.json", "sub/c", "sub/deep/d.bin", ".hidden", "sub/population-1"])
TREES = st.dictionaries(NAMES, st.binary(max_size=9), max_size=6)
SECRET = "correct-horse"


def write(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@given(trees=st.lists(TREES, min_size=1, max_size=4))
def test_what_is_pushed_here_is_pulled_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, bytes]]
) -> None:
    top = tmp_path_factory.mktemp("mirror")
    store = Folder(f"file://{top}/store")
    sender, receiver = Mirror(top / "here", store), Mirror(top / "there", store, "population-")
    for tree in trees:
        time.sleep(0.01)  # longer than a tick of a file system's clock
        write(top / "here", tree)
        sender.push()
        receiver.pull()
        copied = {name: content for name, content in tree.items() if name != ".hidden"}
        assert read(top / "store") == copied
        copied.pop("sub/population-1", None)
        assert read(top / "there") == copied


class Failing(Folder):
    """A store that fails after some files."""

    left = 0

    def upload(self, file: Path, name: str) -> None:
        if not self.left:
            raise OSError("no answer")
        self.left -= 1
        super().upload(file, name)


@pytest.mark.parametrize("sent", range(3))
def test_a_copy_that_is_cut_short_has_what_its_manifest_names(tmp_path: Path, sent: int) -> None:
    store = Failing(f"file://{tmp_path}/store")
    mirror, names = Mirror(tmp_path / "here", store), ["last-1", "last.json", "epochs"]
    store.left = len(names)
    for state in (b"1", b"2"):
        for path in (tmp_path / "here").glob("last-*"):
            path.unlink()
        for name in (f"last-{state.decode()}", *names[1:]):
            path = tmp_path / "here" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(state)
        if state == b"1":
            mirror.push()
    store.left = sent
    with pytest.raises(Refusal, match="store: no answer; a store that answers expected"):
        mirror.push()
    kept = read(tmp_path / "store")
    assert kept[f"last-{kept['last.json'].decode()}"] == kept["last.json"]
    store.left = len(names)
    mirror.push()  # goes on where it was cut short
    assert read(tmp_path / "store") == read(tmp_path / "here")


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "store", {"\x1b[2J": b""})
    with pytest.raises(Refusal, match="is no name of a file in this folder"):
        Mirror(tmp_path / "here", Folder(f"file://{tmp_path}/store")).pull()


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_on_a_machine_without_its_folder(
    steady: Steady, tmp_path: Path
) -> None:
    """It ends with the figures of an undisturbed sweep on one disk. Its password is not kept."""
    (file, images), whole = steady

    def tune(machine: str, *words: str) -> "subprocess.Popen[str]":
        (tmp_path / machine).mkdir(exist_ok=True)
        command = ["tune", file, "--data", images, "-o", uri, "train.epochs=40", *words]
        return subprocess.Popen(
            [sys.executable, "-m", "distvae", *command],
            cwd=tmp_path / machine,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    with object_store(SECRET) as uri:
        uri = uri.replace("/runs?", "/steady?")
        begun, store = tune("one"), Folder(uri)
        while not store.find("figures.json"):
            assert begun.poll() is None, begun.communicate()
            time.sleep(0.1)
        os.killpg(begun.pid, signal.SIGINT)
        said = begun.communicate(timeout=200)[1]
        assert begun.returncode == 130, said
        refused = tune("two")
        said += refused.communicate(timeout=200)[1]
        assert refused.returncode == 2
        assert "holds a sweep; --resume continues it, --force replaces it" in said
        resumed = tune("two", "--resume")
        said += resumed.communicate(timeout=300)[1]
        assert resumed.returncode == 0, said
        assert_whole(out := tmp_path / "two" / "runs" / "steady", whole)
        assert {"optuna.db", "results.json", "trials/1/best.json"} <= store.stamps().keys()
    assert SECRET not in said
    assert not any(SECRET.encode() in content for content in read(out).values())
