"""What runs on a head is seen by others, and no longer than it runs."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.cluster import LOCK_FILE, refuse_if_running

HOLD = (
    "from distvae.machines.cluster import mark_running\n"
    "with mark_running('distvae tune {}'):\n   "
    " print('held', flush=True)\n    input()"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def held(name: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", HOLD.format(name)]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_as_long_as_one_command_runs_whatever_its_end_ray_is_not_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On NFS, only a file that is open for writing is locked for one alone."""
    flock = fcntl.flock

    def flock_of_nfs(file: int, operation: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    refuse_if_running()
    assert not Path(LOCK_FILE).expanduser().exists(), "nothing was ever run"
    with held("one") as one, held("two") as two:
        with pytest.raises(
            Refusal, match=r"'distvae tune two' runs on this head, and 'ray up' restarts Ray"
        ):
            refuse_if_running()
        two.communicate("\n", timeout=30)
        with pytest.raises(Refusal, match="runs on this head"):
            refuse_if_running()
        one.send_signal(signal.SIGKILL)
        one.wait(30)
    refuse_if_running()
