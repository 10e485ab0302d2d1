import errno
import os
import threading
from pathlib import Path

import pytest

from distvae.files.paths import atomic_file, prepare_folder
from distvae.files.refusal import Refusal


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


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        _fail(target, ZeroDivisionError())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_a_refusal_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"a\.txt: No space left on device"):
        _fail(tmp_path / "a.txt", OSError(errno.ENOSPC, "No space left on device"))


def _fail(target: Path, error: Exception) -> None:
    with atomic_file(target) as temporary:
        temporary.write_text("part")
        raise error


def test_a_folder_that_holds_something_needs_force(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "deep" / "new", force=False)
    assert (tmp_path / "deep" / "new").is_dir()
    (tmp_path / "deep" / "new" / "file").touch()
    with pytest.raises(Refusal, match="not empty"):
        prepare_folder(tmp_path / "deep" / "new", force=False)
    prepare_folder(tmp_path / "deep" / "new", force=True)
    with pytest.raises(Refusal, match="a folder that can be made"):
        prepare_folder(tmp_path / "deep" / "new" / "file", force=True)
