"""A run kept in an object store: resumed to the same numbers, its password never shown."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distvae.config import IdxData, PatchData
from distvae.data import open_dataset
from distvae.data.windows import PatchFamily
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs, read_info, state_folder, update_local_copy
from distvae.train.session import fit
from tests import tiny
from tests.object_store import object_store

SECRET = "correct-horse"
TVAE: dict[str, Any] = {
    "model": {"kind": "tvae"},
    "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 16},
    "train": {"epochs": 3},
}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return the URI of an empty bucket, on a server of this machine."""
    with object_store(SECRET) as uri:
        yield uri


def test_files_are_written_read_and_removed(store: str) -> None:
    folder = Folder(store).subfolder("files")
    assert folder.is_empty()
    folder.write("a", b"one")
    folder.append("a", b"two")
    assert folder.list_files() == ["a"]
    assert folder.read("a") == b"onetwo"
    folder.remove()
    assert folder.is_empty()


@pytest.mark.slow
def test_a_run_is_what_it_would_be_here(store: str, tmp_path: Path) -> None:
    here, there = (
        tmp_path / "here",
        state_folder(tmp_path / "run", store, resume=False, force=False),
    )
    list(fit(tiny.config(**TVAE), tiny.dataset(), here))
    begun = fit(tiny.config(**TVAE), tiny.dataset(), there)
    next(begun)
    del begun
    list(fit(tiny.config(**TVAE), tiny.dataset(), there, resume=True))
    update_local_copy(there, tmp_path / "run")
    bounds = [
        [epoch["val_bound"] for epoch in read_epochs(run)] for run in (here, tmp_path / "run")
    ]
    assert bounds[0] == bounds[1]
    x = tiny.dataset().splits["test"][:]
    assert (Run.open(here).encode(x) == Run.open(tmp_path / "run").encode(x)).all()
    names = {path.name.partition("-")[0] for path in (tmp_path / "run").iterdir()}
    assert names == {
        "run.json",
        "config.yaml",
        "epochs.jsonl",
        "best.json",
        "last.json",
        "best",
        "last",
    }
    assert not any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert "bucket/runs/run" in read_info(tmp_path / "run")["storage"]
    assert SECRET not in str(there)


@pytest.mark.long
def test_two_workers_keep_in_a_bucket_what_one_keeps_here(store: str, tmp_path: Path) -> None:
    bounds = []
    for words in ((), ("--workers", "2", "--storage", store)):
        out = tmp_path / f"by-{len(words)}"
        command = ["train", "bars", "train.epochs=2", "-o", str(out), "--no-track", *words]
        settings = os.environ | {"OMP_NUM_THREADS": "1"}
        said = subprocess.run(
            [sys.executable, "-m", "distvae", *command],
            env=settings,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert said.returncode == 0, said.stderr
        assert SECRET not in said.stdout + said.stderr
        bounds.append([epoch["val_bound"] for epoch in read_epochs(out)])
    assert bounds[1] == pytest.approx(bounds[0])


@pytest.mark.slow
def test_a_resume_needs_the_storage_that_the_run_began_with(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = state_folder(tmp_path / "again", store, resume=False, force=False)
    list(fit(tiny.config(**TVAE), tiny.dataset(), there))
    update_local_copy(there, tmp_path / "again")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(Refusal, match=r"--resume --storage s3://bucket/runs expected"):
        state_folder(tmp_path / "again", None, resume=True, force=False)
    found = state_folder(tmp_path / "again", store, resume=True, force=False)
    assert found.has("last.json")
    assert found.remote


def test_a_storage_that_cannot_be_written_is_refused_without_its_password(
    store: str, tmp_path: Path
) -> None:
    with pytest.raises(
        Refusal, match=r"--storage: s3://other/runs/run: .*NO_SUCH_BUCKET"
    ) as refused:
        state_folder(
            tmp_path / "run", store.replace("@bucket", "@other"), resume=False, force=False
        )
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "run").exists()


def put(
    folder: Folder, name: str, picture: np.ndarray[Any, np.dtype[np.uint8]], scratch: Path
) -> None:
    Image.fromarray(picture).save(scratch / "picture.png")
    folder.write(name, (scratch / "picture.png").read_bytes())


@pytest.fixture
def bucket_folder(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Return a folder of the bucket, by a URI without a password, with a cache of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    return Folder(store.replace(f"key:{SECRET}@", "")).subfolder(tmp_path.name)


def test_data_of_a_uri_is_what_it_would_be_here_and_is_brought_once(
    bucket_folder: Folder, tmp_path: Path
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)
    put(bucket_folder, "house.png", picture, tmp_path)
    uri = bucket_folder.address.replace(tmp_path.name, f"{tmp_path.name}/house.png")
    there = open_dataset(PatchData(path=uri, window=(4, 4)))
    here = open_dataset(PatchData(path=str(tmp_path / "picture.png"), window=(4, 4)))
    assert there.digest == here.digest
    assert np.array_equal(there.splits["train"][:], here.splits["train"][:])
    assert there.origin == uri
    assert there.name == "house.png"
    assert np.array_equal(PatchFamily(PatchData(path=uri)).clean().values[..., 0], picture)
    (kept,) = (tmp_path / "cache" / "data").glob("*/house.png")
    written = kept.stat().st_mtime_ns
    open_dataset(PatchData(path=uri, window=(4, 4)))
    assert kept.stat().st_mtime_ns == written
    put(bucket_folder, "house.png", picture[:, :20], tmp_path)
    assert open_dataset(PatchData(path=uri, window=(4, 4))).digest != here.digest


def test_data_of_a_uri_that_is_not_there_or_tells_a_password_is_refused(
    bucket_folder: Folder, store: str
) -> None:
    with pytest.raises(Refusal, match=r"data\.path: s3://bucket/runs/.*: .*does not exist"):
        open_dataset(IdxData(path=bucket_folder.subfolder("nothing").address))
    with pytest.raises(Refusal, match="names and passwords belong in the environment") as refused:
        open_dataset(IdxData(path=store))
    assert SECRET not in str(refused.value)
