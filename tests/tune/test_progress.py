"""What is known of trials that began before a sweep was interrupted: how far, and how long."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distvae.track import Sending, Store
from distvae.tune.display import SweepDisplay
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.plan import Plan
from distvae.tune.preparation import DEFAULT_RESOURCES
from distvae.tune.progress import TrialProgress, read_progress
from distvae.tune.recorder import Recorder
from distvae.tune.results import EndedEpoch
from distvae.tune.space import Space
from distvae.tune.space_files import read_space
from distvae.tune.sweep import _run_trials
from distvae.tune.trial import Trials
from tests.tune.sweeps import TREE


@pytest.fixture
def space() -> Space:
    tree: dict[str, Any] = TREE | {"search": "random"}
    return read_space("space", tree)


def write_epochs(folder: Path, seconds: float, *epochs: int) -> None:
    """Write the records of epochs as a training does, each of which takes some seconds."""
    folder.mkdir(parents=True)
    lines = []
    for epoch in epochs:
        fields = {"epoch": epoch, "val_bound": -1.0 / epoch, "seconds": seconds * epoch}
        lines.append(json.dumps(fields | {"val_objective": 0.0}) + "\n")
    (folder / "epochs.jsonl").write_text("".join(lines))


def resumed(space: Space, out: Path) -> Recorder:
    """What a sweep in a folder records, as after a start of its process."""
    trials, display = Trials(space, out / "trials"), SweepDisplay(space, quiet=True)
    sending = Sending(Store.find(out), out)
    return Recorder(trials, OptunaStudy(space, out), display, sending, lambda: False)


def run(recorder: Recorder, run_trials: Callable[[Recorder], None]) -> dict[int, tuple[Any, ...]]:
    """Run trials so, and return how far each came."""
    _run_trials(Plan(recorder.trials.space, DEFAULT_RESOURCES, run_trials), recorder)
    return {
        number: (result.state, result.epoch, result.bound, result.seconds)
        for number, result in recorder.display.results.items()
    }


@pytest.fixture
def begun(space: Space, tmp_path: Path) -> Path:
    """A sweep that was interrupted: two trials trained, and a third was only asked for."""
    study = OptunaStudy(space, tmp_path)
    for _ in range(3):
        assert study.next_trial()
    write_epochs(tmp_path / "trials" / "1", 2.0, *range(1, 12))
    write_epochs(tmp_path / "trials" / "2", 3.0, *range(1, 11))
    return tmp_path


def test_a_resumed_sweep_that_is_stopped_at_once_knows_how_far_its_trials_came(
    space: Space, begun: Path
) -> None:
    found = run(resumed(space, begun), lambda recorder: None)
    assert found == {1: ("stopped", 11, -1 / 11, 22.0), 2: ("stopped", 10, -1 / 10, 30.0)}


def test_a_trial_that_goes_on_and_is_stopped_before_an_epoch_keeps_those_from_before(
    space: Space, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_soon(recorder: Recorder) -> None:
        recorder.started(1, recorder.study.values(1))
        monkeypatch.setattr(time, "monotonic", lambda: 107.0)
        recorder.ended(1, {"stopped": True}, "")

    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    found = run(resumed(space, begun), stop_soon)
    assert found[1] == ("stopped", 11, -1 / 11, 29.0)


def test_what_has_ended_is_not_said_to_be_stopped(space: Space, begun: Path) -> None:
    def fail(recorder: Recorder) -> None:
        recorder.started(1, recorder.study.values(1))
        recorder.ended(1, {"failure": "diverged"}, "")

    found = run(resumed(space, begun), fail)
    assert {number: state for number, (state, *_) in found.items()} == {1: "failed", 2: "stopped"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_time_of_a_resumed_trial_is_that_of_all_sessions_and_seeds(
    seeds: int, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, folder = resumed(replace(space, seeds=seeds), tmp_path), tmp_path / "trials" / "1"
    first = space.base.train.seed
    for seed in range(seeds):
        write_epochs(folder / f"seed-{first + seed}" if seeds > 1 else folder, 13.0, 1, 2, 3)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recorder.started(1, {})
    recorder.started(2, {})
    now += 27.0
    recorder.trained(1, [EndedEpoch(4, -0.25, seeds - 1)])
    recorder.trained(2, [EndedEpoch(1, -0.25)])
    found = [recorder.display.results[number].seconds for number in (1, 2)]
    assert found == [seeds * 39.0 + 27.0, 27.0]


def test_the_time_of_a_branch_begins_where_it_continues_another(
    space: Space, tmp_path: Path
) -> None:
    trials = Trials(space, tmp_path)
    write_epochs(trials.folder_of(1), 2.0, 1, 2, 3, 4)
    write_epochs(trials.folder_of(2), 2.0, 3)
    lineage: Any = {"parent": 1, "epoch": 2, "replaces": 3}
    assert read_progress(trials, 2, {}, lineage) == TrialProgress(3, -1 / 3, 2.0)
    assert read_progress(trials, 4, {}, lineage) == TrialProgress()


def test_damaged_records_say_nothing_of_how_far_a_trial_came(space: Space, tmp_path: Path) -> None:
    trials = Trials(space, tmp_path)
    write_epochs(trials.folder_of(1), 2.0, 1, 2)
    (trials.folder_of(1) / "epochs.jsonl").write_text("{}\n")
    assert read_progress(trials, 1, {}, None) == TrialProgress()
