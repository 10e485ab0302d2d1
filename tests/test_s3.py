"""A run kept in an object store: the same numbers, resumed, brought here to be looked at, its password nowhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distvae.refusal import Refusal
from distvae.storage import Folder
from distvae.train.mirror import bring, place
from distvae.train.run import Run, read_epochs, read_info
from distvae.train.session import fit
from tests import tiny

SECRET = "correct-horse"
TVAE: dict[str, Any] = {
    "model": {"kind": "tvae"},
    "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 16},
    "train": {"epochs": 3},
}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A URI of an empty bucket, in a server of this machine."""
    pytest.importorskip("moto", reason="moto, which plays an object store, is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    Folder(f"s3://key:{SECRET}@bucket?{options}").system.create_dir("bucket")
    yield f"s3://key:{SECRET}@bucket/runs?{options}"
    server.stop()


def test_files_are_written_read_and_removed(store: str) -> None:
    folder = Folder(store).below("files")
    assert folder.empty()
    folder.write("a", b"one")
    folder.append("a", b"two")
    assert folder.names() == ["a"]
    assert folder.read("a") == b"onetwo"
    folder.remove()
    assert folder.empty()


def test_a_run_is_what_it_would_be_here(store: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", place(tmp_path / "run", store, resume=False, force=False)
    list(fit(tiny.config(**TVAE), tiny.dataset(), here))
    begun = fit(tiny.config(**TVAE), tiny.dataset(), there)
    next(begun)
    del begun
    list(fit(tiny.config(**TVAE), tiny.dataset(), there, resume=True))
    bring(there, tmp_path / "run")
    bounds = [[epoch["val_bound"] for epoch in read_epochs(run)] for run in (here, tmp_path / "run")]
    assert bounds[0] == bounds[1]
    x = tiny.dataset().splits["test"][:]
    assert (Run.open(here).encode(x) == Run.open(tmp_path / "run").encode(x)).all()
    names = {path.name.partition("-")[0] for path in (tmp_path / "run").iterdir()}
    assert names == {"run.json", "config.yaml", "epochs.jsonl", "best.json", "last.json", "best", "last"}
    assert not any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert "bucket/runs/run" in read_info(tmp_path / "run")["storage"]
    assert SECRET not in str(there)


def test_a_resume_finds_the_storage_that_the_run_began_with(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place(tmp_path / "again", store, resume=False, force=False)
    list(fit(tiny.config(**TVAE), tiny.dataset(), there))
    bring(there, tmp_path / "again")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = place(tmp_path / "again", None, resume=True, force=False)
    assert found.has("last.json")
    assert found.remote


def test_a_storage_that_cannot_be_written_is_refused_without_its_password(store: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"--storage: s3://other/runs/run: .*NO_SUCH_BUCKET") as refused:
        place(tmp_path / "run", store.replace("@bucket", "@other"), resume=False, force=False)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "run").exists()
