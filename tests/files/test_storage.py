"""Folders: files are written completely or not at all, and a password is never shown."""

import os
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder


@pytest.fixture(params=["path", "uri"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return the same folder by its path and by its URI."""
    return Folder(tmp_path / "deep" if request.param == "path" else f"file://{tmp_path}/deep")


def test_what_is_written_is_read(folder: Folder) -> None:
    assert folder.is_empty()
    folder.write("a", b"one")
    folder.write("a", b"two")
    folder.append("b", b"x")
    folder.append("b", b"y")
    assert (folder.read("a"), folder.read("b")) == (b"two", b"xy")
    assert folder.list_files() == ["a", "b"]
    assert folder.has("a")
    assert not folder.has("c")
    assert not folder.is_empty()


def test_files_of_subfolders_are_found_by_name(folder: Folder) -> None:
    assert folder.find("a") == []
    folder.write("a", b"")
    for name in ("y", "x"):
        folder.subfolder(name).subfolder("deep").write("a", b"")
        folder.subfolder(name).write("b", b"")
    assert folder.find("a") == ["x/deep/a", "y/deep/a"]
    assert folder.find("a", "b") == ["x/b", "x/deep/a", "y/b", "y/deep/a"]


def test_what_is_deleted_is_gone(folder: Folder) -> None:
    folder.write("a", b"one")
    folder.delete("a")
    folder.delete("never there")
    assert folder.list_files() == []
    folder.remove()
    assert folder.is_empty()
    folder.remove()


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


def test_a_file_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"words")
    assert not Folder(tmp_path / "file").is_empty()


@pytest.mark.parametrize(
    ("given", "name", "below"),
    [
        ("runs", "x", "runs/x"),
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
