"""Sweeps whose processes train stacks: who gets which trials, interruptions, deaths."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from distvae.data import open_dataset
from distvae.track.journal import Journal
from distvae.train.cost import DataSize, estimate_cost
from distvae.tune.optuna_study import NextTrial
from distvae.tune.results import EndedEpoch
from distvae.tune.stacks import shape
from distvae.tune.stacks.process import Conversation, Orders, StackReport, TrialStack
from distvae.tune.stacks.stacked import StackedSweep
from tests.tune.sweeps import (
    Sweep,
    assert_others_go_on,
    assert_whole,
    chosen,
    figures,
    study_states,
)


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
    monkeypatch.setattr(shape, "available_memory", lambda: free)
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


class Endless:
    """A stack that trains nothing, whose trials report an epoch each time and never end."""

    def __init__(self) -> None:
        self.members: dict[int, int] = {}

    def follow(self, orders: Orders) -> None:
        for number in orders.halt:
            self.members.pop(number, None)
        for trial in orders.begin:
            self.members[trial.number] = 0

    def train(self) -> None:
        time.sleep(0.001)
        self.members = {number: epoch + 1 for number, epoch in self.members.items()}

    def reports(self) -> Mapping[int, StackReport]:
        epochs = {number: [EndedEpoch(epoch, 0.0)] for number, epoch in self.members.items()}
        return {number: StackReport(ended) for number, ended in epochs.items()}


def converse(connection: Connection) -> None:
    """Be a process of a sweep."""
    with connection, suppress(EOFError, OSError):
        Conversation(cast(TrialStack, Endless()), connection).go_on()


def test_processes_stay_until_the_last_trial_is_halted(
    sweep_of: Callable[..., StackedSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(2, 2)
    processes = sweep.processes
    for process in processes:
        process.connection, its = Pipe()
        Thread(target=converse, args=(its,), daemon=True).start()

    def judged(number: int, epochs: Sequence[EndedEpoch]) -> bool:
        time.sleep(0.01)  # in which processes go on
        return epochs[-1].epoch >= number

    monkeypatch.setattr(sweep.recorder.study, "should_stop", judged)
    monkeypatch.setattr(sweep, "_start_process", lambda: pytest.fail("a process ended"))
    sweep._train()
    states = {number: each.state for number, each in sweep.recorder.display.results.items()}
    assert states == dict.fromkeys(range(1, 7), "halted")
    for process in processes:  # each has one report that is not answered
        assert not process.connection.poll(0.05)
        process.connection.send(Orders([NextTrial(7, {})]))
        assert list(process.connection.recv()) == [7]


def test_a_halted_trial_that_ends_before_it_hears_of_it_is_recorded_as_killed(
    sweep_of: Callable[..., StackedSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(1, 1)
    (process,) = sweep.processes
    process.connection, its = Pipe()
    monkeypatch.setattr(sweep.recorder.study, "should_stop", lambda number, epochs: True)
    its.send({})
    sweep._serve(process)
    (trial,) = its.recv().begin
    (run,) = sweep.recorder.trials.runs(trial.number, trial.values)
    run.folder.mkdir(parents=True)
    its.send({trial.number: StackReport([EndedEpoch(1, 0.0)])})
    sweep._serve(process)
    assert its.recv().halt == [trial.number]
    run.tracker().close("FINISHED")
    its.send({trial.number: StackReport([EndedEpoch(2, 0.0)], {"figures": {"loss": 0.0}})})
    sweep._serve(process)
    ends = [each["status"] for each, _ in Journal(run.folder).entries(0) if each["is"] == "end"]
    assert ends == ["FINISHED", "KILLED"]
    assert sweep.recorder.display.results[trial.number].state == "halted"


@pytest.mark.long
def test_a_stacked_sweep_has_the_figures_of_one_that_is_not(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, whole = steady
    stacked = Sweep(*words, str(tmp_path / "sweep"), "train.epochs=40", "stack=3")
    stacked.finish()
    assert figures(tmp_path / "sweep") == whole


@pytest.mark.long
@pytest.mark.parametrize("begun", [1, 3])
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


@pytest.mark.long
def test_trials_of_a_stack_whose_process_is_killed_go_on_in_others(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    assert_others_go_on(steady, tmp_path / "sweep", stack_processes, "stack=3")


@pytest.mark.long
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
