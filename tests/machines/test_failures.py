"""Workers that are lost are restarted; a training that does not move on gives up."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from distvae.machines.driver import RESTARTS
from distvae.train.run_folder import read_events, starts_of
from tests.train.commands import PLAIN, TORCHRUN, bits, command, run
from tests.train.patched import patch_trainer
from tests.train.processes import WORKER, below, titled


@pytest.mark.long
def test_a_training_goes_on_after_an_accelerator_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ["bars", "data.rows=200", "train.epochs=4"]
    run(TORCHRUN, recipe, tmp_path / "undisturbed")
    fail = "import torch; raise torch.AcceleratorError('CUDA error: uncorrectable ECC error')"
    patch_trainer(monkeypatch, tmp_path / "patch", 1, 2, 0, fail)
    run(PLAIN, recipe, tmp_path / "run", "--workers", "2")
    assert (tmp_path / "patch" / "met").exists()
    assert len(starts_of(read_events(tmp_path / "run"))) == 2
    assert bits(tmp_path / "run") == bits(tmp_path / "undisturbed")


@pytest.mark.long
def test_a_training_whose_workers_are_killed_at_each_start_says_so_and_ends(tmp_path: Path) -> None:
    words = command(PLAIN, ["bars", "train.epochs=3"], tmp_path / "run", "--workers", "1")
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as training:
        while training.poll() is None and time.monotonic() < deadline:
            for worker in set(titled(WORKER, below(training.pid))) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
            time.sleep(0.05)
        training.terminate()
        _, said = training.communicate()
    assert training.returncode == 1
    assert "the workers were lost again and again; if the system killed them" in said
    assert "Traceback" not in said
    assert len(killed) > RESTARTS
