"""Workers that are lost without progress are restarted a few times; others, as Ray allows."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.train import FailureConfig
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import (
    ControllerError,
    PreemptionError,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.v2.api.preemption import PreemptionInfo

from distvae.files.storage import Folder
from distvae.machines.workers.driver import _why_workers_ended
from distvae.machines.workers.failures import RESTARTS_WITHOUT_PROGRESS, StopsWithoutProgress
from distvae.train.events import EVENTS, read_events, starts_of
from tests.train.commands import PLAIN, TORCHRUN, bits, command, run
from tests.train.patched import patch_trainer
from tests.train.processes import WORKER, below, titled

MOST = 20
LOST = [
    WorkerGroupError("killed", {0: RuntimeError("killed")}),
    ControllerError(WorkerGroupStartupFailedError("killed")),
]
OTHERS = [
    ControllerError(WorkerGroupStartupTimeoutError(2)),
    PreemptionError(PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={"node": [0]})),
]


def policy(folder: Path) -> StopsWithoutProgress:
    return StopsWithoutProgress(FailureConfig(max_failures=MOST), Folder(folder), EVENTS)


def start(folder: Path, epoch: int, batch: int) -> None:
    with (folder / EVENTS).open("a") as file:
        file.write(json.dumps({"epoch": epoch, "batch": batch}) + "\n")


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize("started", [False, True])
def test_workers_that_are_lost_at_the_same_place_again_and_again_are_given_up(
    error: TrainingFailedError, started: bool, tmp_path: Path
) -> None:
    patience = policy(tmp_path)
    for _ in range(RESTARTS_WITHOUT_PROGRESS):
        if started:
            start(tmp_path, 3, 4)
        assert patience.make_decision(error) == FailureDecision.RETRY
    assert patience.make_decision(error) == FailureDecision.RAISE


STEPS = st.sampled_from([0, 0, 0, 1])
ERRORS = st.sampled_from([*LOST, *LOST, *OTHERS])


@given(history=st.lists(st.tuples(STEPS, ERRORS), max_size=MOST))
def test_only_losses_without_progress_between_them_count(
    history: list[tuple[int, TrainingFailedError]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    patience = policy(folder)
    batch, lost_at, in_vain = 0, -1, 0
    for step, error in history:
        start(folder, 1, batch := batch + step)
        if error in LOST:
            in_vain = in_vain + 1 if batch == lost_at else 0
            lost_at = batch
        given_up = patience.make_decision(error) == FailureDecision.RAISE
        assert given_up == (in_vain == RESTARTS_WITHOUT_PROGRESS)
        if given_up:
            return


def broken(text: str) -> WorkerGroupError:
    failures = {0: RuntimeError("another worker has ended"), 1: torch.AcceleratorError(text)}
    return WorkerGroupError("failed", failures)


def test_an_accelerator_that_fails_alike_at_one_place_is_given_up_with_what_it_says(
    tmp_path: Path,
) -> None:
    patience = policy(tmp_path)
    for batch, text in ((4, "ECC"), (4, "ECC"), (5, "ECC"), (5, "launch"), (5, "ECC"), (5, "ECC")):
        start(tmp_path, 3, batch)
        assert patience.make_decision(broken(text)) == FailureDecision.RETRY
    assert patience.make_decision(broken("ECC")) == FailureDecision.RAISE
    assert _why_workers_ended(broken("ECC")).endswith("failed again and again: ECC")


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


def test_a_line_that_a_crash_cut_short_is_no_event(tmp_path: Path) -> None:
    start(tmp_path, 1, 2)
    patience = policy(tmp_path)
    patience.make_decision(LOST[0])
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"epoch": 2')
    patience.make_decision(LOST[0])
    assert patience.without_progress == 1


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
    assert len(killed) > RESTARTS_WITHOUT_PROGRESS
