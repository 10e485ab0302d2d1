"""Folders: files are written completely or not at all, and a password is never shown."""

import errno
import os
import threading
from pathlib import Path

import pytest

from distvae.files.paths import atomic_file, prepare_folder
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder


@pytest.fixture(params=["path", "uri"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return the same folder by its path and by its URI."""
    return Folder(tmp_path / "deep" if request.param == "path" else f"file://{tmp_path}/deep")


def test_what_is_written_is_read_found_and_deleted(folder: Folder) -> None:
    assert folder.is_empty()
    assert folder.find("a") == []
    folder.write("a", b"one")
    folder.write("a", b"two")
    folder.append("b", b"x")
    folder.append("b", b"y")
    assert (folder.read("a"), folder.read("b")) == (b"two", b"xy")
    assert folder.list_files() == ["a", "b"]
    assert (folder.has("a"), folder.has("c"), folder.is_empty()) == (True, False, False)
    for name in ("y", "x"):
        folder.subfolder(name).subfolder("deep").write("a", b"")
        folder.subfolder(name).write("b", b"")
    assert folder.find("a", "b") == ["x/b", "x/deep/a", "y/b", "y/deep/a"]
    folder.delete("a")
    folder.delete("never there")
    assert folder.list_files() == ["b"]
    for _ in range(2):
        folder.remove()
        assert folder.is_empty()


def write_half(folder: Folder, name: str) -> None:
    with folder.create(name) as sink:
        sink.write(b"half")
        raise InterruptedError


def test_an_error_while_writing_leaves_the_file_as_it_was(folder: Folder) -> None:
    folder.write("a", b"one")
    with pytest.raises(InterruptedError):
        write_half(folder, "a")
    assert folder.read("a") == b"one"
    assert folder.list_files() == ["a"]


def test_what_never_ends_is_not_read(folder: Folder, tmp_path: Path) -> None:
    folder.write("a", b"one")
    os.mkfifo(tmp_path / "deep" / "pipe")
    (tmp_path / "deep" / "zeros").symlink_to("/dev/zero")
    for name, kind in {"pipe": "a named pipe", "zeros": "a link out of"}.items():
        with pytest.raises(Refusal, match=f"{name}: {kind}"):
            folder.read(name)
        with pytest.raises(Refusal, match=f"{name}: {kind}"):
            folder.open_verified(name, "")


@pytest.mark.parametrize(
    ("given", "name", "below"),
    [
        ("runs/why?", "x", "runs/why?/x"),
        ("file:///runs/", "x", "file:///runs/x"),
        (
            "abfs://box@account.dfs.core.windows.net/a@b",
            "x",
            "abfs://box@account.dfs.core.windows.net/a@b/x",
        ),
        (
            "abfss://box:secret@account.dfs.core.windows.net/",
            "x",
            "abfss://box@account.dfs.core.windows.net/x",
        ),
        (
            "s3://key:secret@bucket/runs?endpoint_override=host:1&scheme=http",
            "x",
            "s3://bucket/runs/x",
        ),
    ],
)
def test_a_folder_in_a_folder_is_told_without_its_password(
    given: str, name: str, below: str
) -> None:
    folder = Folder(given).subfolder(name)
    assert str(folder) == below
    assert "secret" not in str(folder)
    if folder.remote:
        assert folder.address.partition("?")[2] == given.partition("?")[2]


def test_what_is_not_understood_is_refused_without_what_may_be_a_password() -> None:
    with pytest.raises(Refusal, match=r"storage: s3://bucket/runs: .*a path or a URI") as refused:
        Folder("s3://key:sec/ret@bucket/runs")
    assert "sec/" not in str(refused.value)
    assert "ret@" not in str(refused.value)


def test_what_was_appended_is_on_the_disk_before_one_goes_on(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("lines", b"one\n")
    synced: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file)))
    folder.append("lines", b"two\n")
    there = Path(folder.path_of("lines")).stat()
    assert [(found.st_ino, found.st_size) for found in synced] == [(there.st_ino, 8)]


def test_a_file_appears_when_its_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_device_or_a_pipe_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe, said = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reading = threading.Thread(target=lambda: said.append(pipe.read_text()))
    reading.start()
    with atomic_file(pipe) as temporary:
        temporary.write_text("new")
    reading.join(10)
    assert said == ["new"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ZeroDivisionError("why"), "why"),
        (OSError(errno.ENOSPC, "No space left on device"), r"a\.txt: No space left on device"),
    ],
)
def test_a_failed_block_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: Exception, expected: str
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("part")
            raise error

    kind = Refusal if isinstance(error, OSError) else type(error)
    with pytest.raises(kind, match=expected):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_holds_something_needs_force(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "deep" / "new", force=False)
    assert (tmp_path / "deep" / "new").is_dir()
    (tmp_path / "deep" / "new" / "file").touch()
    with pytest.raises(Refusal, match="not empty"):
        prepare_folder(tmp_path / "deep" / "new", force=False)
    prepare_folder(tmp_path / "deep" / "new", force=True)
    with pytest.raises(Refusal, match="a folder that can be made"):
        prepare_folder(tmp_path / "deep" / "new" / "file", force=True)
