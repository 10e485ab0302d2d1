"""The messages of a running sweep: the progress of trials, the time left, and the ends."""

import html
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from distvae.track.store import list_records
from distvae.train.progress import format_duration
from distvae.tune.recorder import LEAST_SECONDS, Recorder, SweepDisplay
from distvae.tune.results import EndedEpoch, Result, html_table
from distvae.tune.space import ROW, Axis, Choice, Row, Space, read_space
from distvae.tune.study import OptunaStudy
from distvae.tune.sweep import run_recorded
from distvae.tune.trial import NO_PROGRESS, TrialProgress, Trials
from tests.tune.sweeps import recorder_of

EPOCHS, INTERVAL, TRIALS = 12, 3, 8
TREE: dict[str, Any] = {
    "base": "bars",
    "fixed": {"train.epochs": EPOCHS},
    "metrics": {"bound": "max"},
    "search": "random",
    "trials": TRIALS,
    "axes": [{"key": "train.rate", "float": [1e-3, 1e-1], "log": True}],
}
POPULATION = {"scheduler": "population", "judge": {"interval": INTERVAL}}
CAUSE = "[/gloo/pair.cc:100:] Connection closed by peer [127.0.0.1]:40211"
"""It has what looks like markup, and like the name of a picture."""


def space(**fields: Any) -> Space:
    return read_space("space", TREE | fields)


class Clock:
    """A clock of a test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def tell(
        self, display: SweepDisplay, number: int, *epochs: int, seed: int = 0, each: float = 1.0
    ) -> Iterator[int]:
        """Tell a display of epochs of some seconds, and yield the seconds so far."""
        for epoch in epochs:
            self.seconds += each
            display.epoch_finished(number, EndedEpoch(epoch, -3.5, seed))
            yield round(self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.seconds)
    return clock


def expected(done: int, total: int, since: int) -> str:
    """The right message when epochs take a second, after `since` epochs of this process."""
    told = f"{done} of {total} epochs in all"
    if since - 1 < LEAST_SECONDS:
        return told
    return f"{told}, about {format_duration(total - done)} left"


def test_without_a_terminal_trials_and_the_time_left_are_told_in_plain_lines(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four trials of two epochs of 25 seconds."""
    explored = space(fixed={"train.epochs": 2}, trials=4)
    values: dict[str, Any] = {"model.kind": "sdm", "model.latent": 4, "model.alpha": 0.12345}
    with SweepDisplay(explored, quiet=False) as display:
        for number in (1, 2):
            display.trial_started(number, values)
            list(clock.tell(display, number, 1, 2, each=25.0))
            display.trial_ended(number, "finished", figures={"bound": 0.25})
        display.trial_started(3, {"model.kind": "vsc"})
        display.trial_ended(3, "failed", CAUSE)
    said = capsys.readouterr().err
    assert "trial 1/4: sdm, 4 latents, alpha 0.123: bound 0.250" in said
    assert f"trial 3/4: vsc: failed: {CAUSE}" in said
    assert "\033" not in said
    assert [line.partition("; ")[2] for line in said.splitlines() if "in all" in line] == [
        "1 of 8 epochs in all",
        "2 of 8 epochs in all, about 2:30 left",
        "3 of 8 epochs in all, about 2:05 left",
        "4 of 8 epochs in all, about 1:40 left",
    ]


def test_a_terminal_and_a_notebook_show_causes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    with SweepDisplay(space(), quiet=False) as display:
        display.trial_started(1, {})
        display.trial_ended(1, "failed", CAUSE)
    assert CAUSE in terminal.getvalue()
    assert CAUSE in html.unescape(html_table(display.table()))


def test_rows_of_different_lengths_are_counted_by_their_own_epochs_and_seeds(clock: Clock) -> None:
    lengths, base = (3, 20, 5), space().base
    rows = {
        f"row {n}": Row("bars", base.with_("train", epochs=length))
        for n, length in enumerate(lengths, 1)
    }
    axes = (Axis(ROW, 0, 0, Choice(tuple(rows))),)
    base = rows["row 1"].config
    table = replace(space(), base=base, axes=axes, rows=rows, trials=3, search="grid", seeds=2)
    display, total = SweepDisplay(table, quiet=True), 2 * sum(lengths)
    assert display.progress() == f"0 of {total} epochs in all"
    for number, length in enumerate(lengths, 1):
        display.trial_started(number, {ROW: f"row {number}"})
        for seed in (0, 1):
            for done in clock.tell(display, number, *range(1, length + 1), seed=seed):
                assert display.progress() == expected(done, total, done)
        display.trial_ended(number, "finished", figures={"bound": -3.5})


def test_a_population_is_counted_by_the_epochs_that_it_trains(clock: Clock) -> None:
    """Two of eight are replaced every three epochs, by branches of the third."""
    display, total = SweepDisplay(space(**POPULATION), quiet=True), TRIALS * EPOCHS
    alive = [*range(1, 9)]
    for number in alive:
        display.trial_started(number, {})
    for start in range(0, EPOCHS, INTERVAL):
        for number in alive:
            for done in clock.tell(display, number, *range(start + 1, start + INTERVAL + 1)):
                assert display.progress() == expected(done, total, done)
        end = start + INTERVAL
        for loser in alive[3:5] if end < EPOCHS else []:
            display.results[loser].state = "halted"
            branch = len(display.results) + 1
            lineage: Any = {"parent": alive[2], "epoch": end, "replaces": loser}
            display.trial_started(branch, {}, lineage)
            alive[alive.index(loser)] = branch
    for number in alive:
        display.trial_ended(number, "finished", figures={"bound": -3.5})
    assert display.progress().startswith(f"{total} of {total} epochs in all")


def test_epochs_from_before_a_resume_are_done_and_say_nothing_of_the_pace(clock: Clock) -> None:
    """Two trials side by side go on where they were, one of them in its second seed."""
    explored = space(trials=4, seeds=2)
    display, total = SweepDisplay(explored, quiet=True), 4 * 2 * EPOCHS
    before = {1: TrialProgress(epoch=7), 2: TrialProgress(epoch=3, seed=1)}
    for number, progress in before.items():
        display.trial_started(number, {}, None, progress)
    for further, number in product(range(1, 6), before):
        epoch, seed = before[number].epoch + further, before[number].seed
        for done in clock.tell(display, number, epoch, seed=seed):
            assert display.progress() == expected(7 + EPOCHS + 3 + done, total, done)


def test_an_epoch_is_new_that_is_further_than_any_before_and_giving_up_counts_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = SweepDisplay(space(fixed={"train.epochs": 2}, seeds=2), quiet=False)
    display.trial_started(1, {})
    told = [(1, 0), (2, 0), (2, 0), (1, 1), (2, 0), (2, 1)]
    found = [display.epoch_finished(1, EndedEpoch(epoch, -1.0, seed)) for epoch, seed in told]
    assert found == [True, True, False, True, False, True]
    display.take_in([Result(number, {}, "failed") for number in (1, 2)])
    display.gave_up()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "2 trials failed, and the other 6 were not started"


def write_epochs(folder: Path, seconds: float, *epochs: int) -> None:
    """Write the records of epochs as a training does. Each epoch takes some seconds."""
    folder.mkdir(parents=True)
    lines = []
    for epoch in epochs:
        fields = {"epoch": epoch, "val_bound": -1.0 / epoch, "seconds": seconds * epoch}
        lines.append(json.dumps(fields | {"val_objective": 0.0}) + "\n")
    (folder / "epochs.jsonl").write_text("".join(lines))


@pytest.mark.slow
def test_the_seeds_of_a_trial_are_sent_while_they_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recorder = recorder_of(space(seeds=2), tmp_path)
    assert recorder.study.next_trial()
    values = recorder.study.values(1)
    runs = recorder.trials.runs(1, values)
    for each in runs:
        each.folder.mkdir(parents=True)
        each.tracker().begin()
    recorder.started(1, values)
    recorder.trained(1, [EndedEpoch(1, -3.5, 0)])
    recorder.sending.finish()
    assert capsys.readouterr().err == ""
    sent = list_records(recorder.sending.store)
    assert {record.folder for record in sent} == {each.folder for each in runs}


def test_the_time_of_a_resumed_trial_is_that_of_all_sessions_and_seeds(
    tmp_path: Path, clock: Clock
) -> None:
    """The sweep was interrupted: two trials trained, and two were only asked for."""
    study = OptunaStudy(space(), tmp_path)
    for _ in range(4):
        assert study.next_trial()
    write_epochs(tmp_path / "trials" / "1", 2.0, *range(1, 12))
    write_epochs(tmp_path / "trials" / "2", 3.0, *range(1, 11))

    def run(train: Callable[[Recorder], None]) -> dict[int, tuple[Any, ...]]:
        """Resume the sweep, and return how far each trial came."""
        run_recorded(recorder := recorder_of(space(), tmp_path), train)
        return {
            number: (result.state, result.epoch, result.bound, result.seconds)
            for number, result in recorder.display.results.items()
        }

    def stop_soon(recorder: Recorder) -> None:
        for number in (1, 2):
            recorder.started(number, recorder.study.values(number))
        clock.seconds += 7.0
        recorder.ended(1, {"stopped": True}, "")
        recorder.ended(2, {"failure": "diverged"}, "")

    before = {1: ("stopped", 11, -1 / 11, 22.0), 2: ("stopped", 10, -1 / 10, 30.0)}
    assert run(lambda recorder: None) == before
    assert run(stop_soon) == {
        1: ("stopped", 11, -1 / 11, 29.0),
        2: ("failed", 10, -0.1, 37.0),
    }
    explored = space(seeds=2)
    recorder, first = recorder_of(explored, tmp_path), explored.base.train.seed
    for seed in (first, first + 1):
        write_epochs(tmp_path / "trials" / "3" / f"seed-{seed}", 13.0, 1, 2, 3)
    for number in (3, 4):
        recorder.started(number, {})
    clock.seconds += 27.0
    recorder.trained(3, [EndedEpoch(4, -0.25, 1)])
    recorder.trained(4, [EndedEpoch(1, -0.25)])
    found = [recorder.display.results[number].seconds for number in (3, 4)]
    assert found == [2 * 39.0 + 27.0, 27.0]


def test_the_time_of_a_branch_begins_where_it_continues_another(tmp_path: Path) -> None:
    trials = Trials(space(), tmp_path)
    write_epochs(trials.folder_of(1), 2.0, 1, 2, 3, 4)
    write_epochs(trials.folder_of(2), 2.0, 3)
    lineage: Any = {"parent": 1, "epoch": 2, "replaces": 3}
    assert trials.progress(2, {}, lineage) == TrialProgress(3, -1 / 3, 2.0)
    assert trials.progress(4, {}, lineage) == NO_PROGRESS
