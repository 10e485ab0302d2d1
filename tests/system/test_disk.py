"""Space is reserved where the disk has it, and where it does not say."""

import errno
import os
from pathlib import Path

import pytest

from distvae.system import reserve_space


def test_more_than_the_disk_has_is_refused_and_fills_nothing(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        free = os.fstatvfs(file.fileno())
        with pytest.raises(OSError, match="No space left") as refused:
            reserve_space(file.fileno(), (free.f_bavail + 1_000_000) * free.f_frsize)
    assert refused.value.errno == errno.ENOSPC
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_a_file_system_that_tells_no_size_is_used() -> None:
    file = os.memfd_create("space")
    try:
        assert os.fstatvfs(file).f_blocks == 0
        reserve_space(file, 4096)
        assert os.fstat(file).st_size == 4096
    finally:
        os.close(file)
