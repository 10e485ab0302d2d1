"""What is told of a running sweep: how far it is, how long the rest takes, and why trials fail."""

import html
import io
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from distvae.train.progress import format_duration
from distvae.tune.axes import Axis, Choice
from distvae.tune.display import LEAST_SECONDS, SweepDisplay
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import ROW, Row, Space
from distvae.tune.space_files import read_space
from distvae.tune.table import html_table

EPOCHS, INTERVAL, TRIALS = 12, 3, 8
TREE: dict[str, Any] = {
    "base": "bars",
    "fixed": {"train.epochs": EPOCHS},
    "metrics": {"bound": "max"},
    "search": "random",
    "trials": TRIALS,
    "axes": [{"key": "train.rate", "float": [1e-3, 1e-1], "log": True}],
}
CAUSE = "[/gloo/pair.cc:100:] Connection closed by peer [127.0.0.1]:40211"
"""It has what looks like markup, and like the name of a picture."""


class Clock:
    """A clock of a test, by which every epoch takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def tell(
        self, display: SweepDisplay, number: int, *epochs: int, seed: int = 0
    ) -> Iterator[int]:
        """Tell a display of epochs, and yield how many it has been told of in all."""
        for epoch in epochs:
            self.seconds += 1.0
            display.epoch_finished(number, EndedEpoch(epoch, -3.5, seed))
            yield round(self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.seconds)
    return clock


def expected(done: int, total: int, since: int) -> str:
    """What is true after so many epochs, so many of them since the sweep was begun or resumed."""
    told = f"{done} of {total} epochs in all"
    if since - 1 < LEAST_SECONDS:
        return told
    return f"{told}, about {format_duration(total - done)} left"


def of_rows(*lengths: int) -> Space:
    """A sweep over rows that train for different times."""
    space = read_space("space", TREE)
    rows = {
        f"row {n}": Row("bars", space.base.with_("train", epochs=length))
        for n, length in enumerate(lengths, 1)
    }
    axes = (Axis(ROW, 0, 0, Choice(tuple(rows))),)
    base = rows["row 1"].config
    return replace(space, base=base, axes=axes, rows=rows, trials=len(rows), search="grid", seeds=2)


def test_rows_of_different_lengths_are_counted_by_their_own(clock: Clock) -> None:
    lengths = (3, 20, 5)
    display, total = SweepDisplay(of_rows(*lengths), quiet=True), 2 * sum(lengths)
    assert display.progress() == f"0 of {total} epochs in all"
    for number, length in enumerate(lengths, 1):
        display.trial_started(number, {ROW: f"row {number}"})
        for seed in (0, 1):
            for done in clock.tell(display, number, *range(1, length + 1), seed=seed):
                assert display.progress() == expected(done, total, done)
        display.trial_finished(number, {"bound": -3.5})


def test_a_population_is_counted_by_the_epochs_that_it_trains(clock: Clock) -> None:
    """Two of eight are replaced every three epochs, by branches of the third."""
    space = read_space("space", TREE | {"scheduler": "population", "judge": {"interval": INTERVAL}})
    display, total, alive = SweepDisplay(space, quiet=True), TRIALS * EPOCHS, [*range(1, 9)]
    for number in alive:
        display.trial_started(number, {})
    for start in range(0, EPOCHS, INTERVAL):
        for number in alive:
            for done in clock.tell(display, number, *range(start + 1, start + INTERVAL + 1)):
                assert display.progress() == expected(done, total, done)
        end = start + INTERVAL
        for loser in alive[3:5] if end < EPOCHS else []:
            replaced = display.results[loser]
            replaced.state, replaced.epoch = "halted", end
            display.trial_replaced(replaced)
            branch = len(display.results) + 1
            lineage: Any = {"parent": alive[2], "epoch": end, "replaces": loser}
            display.trial_started(branch, {}, lineage)
            alive[alive.index(loser)] = branch
    for number in alive:
        display.trial_finished(number, {"bound": -3.5})
    assert display.progress().startswith(f"{total} of {total} epochs in all")


def test_epochs_from_before_a_resume_are_done_and_say_nothing_of_the_pace(clock: Clock) -> None:
    """Two trials side by side go on where they were, one of them in its second seed."""
    space = replace(read_space("space", TREE), trials=4, seeds=2)
    display, total = SweepDisplay(space, quiet=True), 4 * 2 * EPOCHS
    before = {1: (0, 7), 2: (1, 3)}
    for number in before:
        display.trial_started(number, {})
    earlier = 7 + EPOCHS + 3
    for further, number in product(range(1, 6), before):
        seed, epoch = before[number]
        for done in clock.tell(display, number, epoch + further, seed=seed):
            if done > 1:  # before, nothing is known of the second
                assert display.progress() == expected(earlier + done, total, done)


def test_no_more_is_done_than_there_is_after_a_resume_with_fewer_trials(clock: Clock) -> None:
    space = replace(read_space("space", TREE), trials=5)
    display = SweepDisplay(space, quiet=True)
    display.ended_before([Result(number, {}, "finished", EPOCHS) for number in range(1, 9)])
    display.trial_started(9, {})
    for done in clock.tell(display, 9, *range(1, EPOCHS + 1)):
        assert display.progress() == expected(8 * EPOCHS + done, 9 * EPOCHS, done)


@pytest.mark.parametrize(
    ("trials", "others"), [(8, ", and the other 5 were not started"), (3, ""), (2, "")]
)
def test_giving_up_names_others_only_if_there_are_some(
    trials: int, others: str, capsys: pytest.CaptureFixture[str]
) -> None:
    display = SweepDisplay(replace(read_space("space", TREE), trials=trials), quiet=False)
    for number in (1, 2, 3):
        display.trial_started(number, {})
        display.trial_failed(number, "no memory")
    display.gave_up()
    assert capsys.readouterr().err.splitlines()[-1] == f"3 trials failed{others}"


def test_giving_up_counts_only_those_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    display = SweepDisplay(read_space("space", TREE), quiet=False)
    display.ended_before([Result(1, {}, "halted"), Result(2, {}, "failed")])
    display.gave_up()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "1 trial failed, and the other 6 were not started"


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_causes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with SweepDisplay(read_space("space", TREE), quiet=False) as display:
        display.trial_started(1, {})
        display.trial_failed(1, CAUSE)
    assert CAUSE in terminal.getvalue()


def test_a_notebook_shows_causes_as_they_are() -> None:
    display = SweepDisplay(read_space("space", TREE), quiet=True)
    display.trial_started(1, {})
    display.trial_failed(1, CAUSE)
    assert CAUSE in html.unescape(html_table(display.table()))
