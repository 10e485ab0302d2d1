"""What runs on a head is seen by others, and no longer than it runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.running_lock import LOCK_FILE, refuse_if_running

HOLD = (
    "from distvae.machines.running_lock import mark_running\n"
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


def test_nothing_runs_on_a_head_that_never_ran_anything() -> None:
    refuse_if_running()
    assert not Path(LOCK_FILE).expanduser().exists()


def test_as_long_as_one_command_runs_whatever_its_end_ray_is_not_restarted() -> None:
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
