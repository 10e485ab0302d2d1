"""A process that is stopped holds training up for a limited time, and the user is told."""

import os
import subprocess
from pathlib import Path

import pytest

from distvae.machines.session import STALL_VARIABLE
from distvae.train.run_folder import read_events, starts_of
from tests.train.commands import PLAIN, TORCHRUN, bits, command, run
from tests.train.kills import EACH_EPOCH, PACE, RECIPE
from tests.train.patched import patch_trainer

STOP_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
STOP_SHARDS = """
                    import os, signal
                    for process in pathlib.Path("/proc").glob("[0-9]*"):
                        try:
                            title = (process / "cmdline").read_bytes()
                            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                        except OSError:
                            continue
                        if title.startswith(b"ray::ShardActor") and parent == f"{os.getppid()}":
                            os.kill(int(process.name), signal.SIGSTOP)
"""
"""Stop the shards of the Ray that started this worker."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training in which nothing was stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(TORCHRUN, RECIPE, out)
    return out


def said(out: Path, stall_seconds: float, **settings: str) -> str:
    """Train with two workers under Ray, and return the output."""
    words = command(PLAIN, RECIPE, out, "--workers", "2")
    words.remove("--quiet")
    variables = {STALL_VARIABLE: f"{stall_seconds}", "OMP_NUM_THREADS": "1"} | settings
    done = subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.long
def test_workers_of_which_one_is_stopped_are_restarted(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 3, 0, STOP_ITSELF)
    text = said(out, 10)
    assert "worker 0 of 2 has waited " in text
    assert "workers lost or changed; training continues with 2 workers from epoch " in text
    assert len(starts_of(read_events(out))) == 2
    assert bits(out) == bits(undisturbed)
    assert not list(out.glob("messages-*"))


@pytest.mark.long
def test_shards_that_are_stopped_are_replaced(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 30, 0, STOP_SHARDS)  # the shards have started
    slowly = EACH_EPOCH | {PACE: "0.5"}
    assert "a shard has not answered for 10 s; it is replaced" in said(out, 300, **slowly)
    assert len(starts_of(read_events(out))) == 1
    assert bits(out) == bits(undisturbed)
