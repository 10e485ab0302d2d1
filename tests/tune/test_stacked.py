"""Sweeps whose processes train stacks: who gets which trials, interruptions, deaths."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from distvae.data import open_dataset
from distvae.files.plain import Plain
from distvae.track import Relay, Store
from distvae.train.cost import DataSize, estimate_cost
from distvae.tune import stack_shape
from distvae.tune.display import SweepDisplay
from distvae.tune.optuna_study import NextTrial, OptunaStudy
from distvae.tune.recorder import Recorder
from distvae.tune.space_files import read_space
from distvae.tune.stacked import Process, StackedSweep
from distvae.tune.trial import Trials
from tests.tune.sweeps import TREE, Sweep, assert_whole, figures, study_states


@pytest.fixture
def sweep_of(images: Path, tmp_path: Path) -> Callable[..., StackedSweep]:
    """A sweep over a grid of two latent sizes and three rates, whose processes are not started."""

    def build(size: int, processes: int) -> StackedSweep:
        axes = [
            {"key": "model.latent", "choice": [2, 4]},
            {"key": "train.rate", "choice": [1e-3, 2e-3, 3e-3]},
        ]
        tree: dict[str, Any] = TREE | {"axes": axes, "search": "grid", "trials": 6}
        space = read_space("tiny", tree).pinned({"data.path": str(images)})
        trials, display = Trials(space, tmp_path / "trials"), SweepDisplay(space, quiet=True)
        relay = Relay(Store.find(tmp_path), trials.folder)
        recorder = Recorder(trials, OptunaStudy(space, tmp_path), display, relay, lambda: False)
        sweep = StackedSweep(recorder, size, processes)
        process = multiprocessing.get_context("spawn").Process()
        sweep.processes = [Process(process, Pipe()[0]) for _ in range(processes)]
        return sweep

    return build


def chosen(sweep: StackedSweep, process: Process) -> list[Plain]:
    """The latent sizes of the trials that a process begins now."""
    found = sweep.choose(process)
    process.members |= {trial.number: trial for trial in found}
    return [trial.values["model.latent"] for trial in found]


def test_a_process_has_trials_of_one_shape_and_then_those_of_another(
    sweep_of: Callable[..., StackedSweep],
) -> None:
    sweep = sweep_of(2, 1)
    (process,) = sweep.processes
    assert chosen(sweep, process) == [2, 2]
    assert chosen(sweep, process) == []
    process.members.pop(1)
    assert chosen(sweep, process) == [2]
    process.members.popitem()
    assert chosen(sweep, process) == []  # the others have another shape
    process.members.clear()
    assert chosen(sweep, process) == [4, 4]
    process.members.clear()
    assert chosen(sweep, process) == [4]
    process.members.clear()
    assert chosen(sweep, process) == []


def test_processes_without_trials_share_those_of_a_shape(
    sweep_of: Callable[..., StackedSweep],
) -> None:
    sweep = sweep_of(4, 2)
    one, other = sweep.processes
    assert [chosen(sweep, one), chosen(sweep, other)] == [[2, 2], [2]]


def test_a_stack_has_as_many_trials_as_have_room_in_memory(
    sweep_of: Callable[..., StackedSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(4, 1)
    (process,) = sweep.processes
    trial = sweep.recorder.study.next_trial()
    assert trial
    sweep.waiting.append(trial)
    config = sweep.space.config(trial.values)
    data = DataSize.of(open_dataset(config.data, quiet=True))
    needed = sum(cost.count for cost in estimate_cost(config, data))
    free = 2 * needed
    monkeypatch.setattr(stack_shape, "available_memory", lambda: free)
    assert chosen(sweep, process) == [2, 2]
    free = needed - 1
    process.members.popitem()
    assert chosen(sweep, process) == []
    process.members.clear()
    assert chosen(sweep, process) == [2]  # its training says what is wrong


def test_a_trial_whose_process_died_goes_on_without_company(
    sweep_of: Callable[..., StackedSweep],
) -> None:
    sweep = sweep_of(4, 2)
    one, other = sweep.processes
    chosen(sweep, other)
    sweep.orphans = [NextTrial(7, {"model.latent": 9}), NextTrial(8, {"model.latent": 9})]
    assert chosen(sweep, one) == [9]
    assert chosen(sweep, one) == []
    assert 9 not in chosen(sweep, other)
    one.members.clear()
    assert chosen(sweep, one) == [9]
    one.members.clear()
    assert 9 not in chosen(sweep, one)


@pytest.mark.slow
def test_a_stacked_sweep_has_the_figures_of_one_that_is_not(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, whole = steady
    stacked = Sweep(*words, str(tmp_path / "sweep"), "train.epochs=40", "stack=3")
    stacked.finish()
    assert figures(tmp_path / "sweep") == whole


@pytest.mark.slow
@pytest.mark.parametrize("begun", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_killed_sweep_of_stacks_goes_on(
    begun: int, steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, whole = steady
    out = tmp_path / "sweep"
    killed = Sweep(*words, str(out), "train.epochs=40", "stack=3")
    killed.wait_for("trials/*/epochs.jsonl", out, begun)
    killed.kill()
    resumed = Sweep(*words, str(out), "train.epochs=40", "stack=3", "--resume")
    resumed.finish()
    assert_whole(out, whole)


def stack_processes(running: Sweep) -> list[int]:
    """The processes of a sweep that train."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = running.mark.encode() in (path / "environ").read_bytes()
            words = (path / "cmdline").read_text()
        except OSError:
            continue
        if ours and ("forkserver" in words or "spawn_main" in words):
            found.append(int(path.name))
    return found


@pytest.mark.slow
def test_trials_of_a_stack_whose_process_is_killed_go_on_in_others(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, whole = steady
    out = tmp_path / "sweep"
    running = Sweep(*words, str(out), "train.epochs=40", "stack=3")
    running.wait_for("trials/*/last.json", out)
    killed = stack_processes(running)
    assert killed
    for process in killed:
        os.kill(process, signal.SIGKILL)
    said = running.finish()
    assert "; another continues it" in said
    assert_whole(out, whole)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_of_stacks_cleanly(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, _ = steady
    out = tmp_path / "sweep"
    running = Sweep(*words, str(out), "train.epochs=1000000", "train.warmup=5", "stack=3")
    while not list(out.glob("trials/*/epochs.jsonl")) and running.process.poll() is None:
        time.sleep(0.2)
    running.interrupt()
    trials = json.loads((out / "results.json").read_text())["trials"]
    assert {trial["state"] for trial in trials} == {"stopped"}
    assert "RUNNING" in study_states(out)  # for --resume
