"""Actions of all workers after the same epoch or block: report to Ray, ask for notices, wait."""

import threading
import time
from typing import TypeVar

import pytest

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.worker import (
    REPORT_VARIABLE,
    Job,
    PreemptionNotices,
    RayReports,
    WatchedTeam,
)
from distvae.train.team import ALONE, Alone, Team
from tests.train.crew import crew_of

EPOCHS = 100
T = TypeVar("T")


def reported_epochs(team: Team, pace: float, interval: float = 5.0) -> list[int]:
    """Return the epochs that a worker reports of a hundred, each of `pace` seconds by its clock."""
    now, reported = [0.0], list[int]()
    reports = RayReports(team, reported.append, interval, lambda: now[0])
    for epoch in range(1, EPOCHS + 1):
        now[0] += pace
        reports.epoch_ended(epoch)
    reports.training_ended(EPOCHS)
    return reported


def test_epochs_are_reported_after_some_seconds_and_at_the_end() -> None:
    assert reported_epochs(ALONE, 0.3) == [17, 34, 51, 68, 85, 100]
    assert reported_epochs(ALONE, 7.0) == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_all_workers_report_the_same_epochs() -> None:
    with crew_of(3) as crew:
        reported = crew.all(reported_epochs, [0.3, 0.4, 0.1])
    assert reported[0] == reported[1] == reported[2]


def test_a_setting_makes_each_epoch_report(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Job.of({}, "", Folder("run"), "owner").report_seconds == 5.0
    monkeypatch.setenv(REPORT_VARIABLE, "0")
    seconds = Job.of({}, "", Folder("run"), "owner").report_seconds
    assert reported_epochs(ALONE, 0.1, seconds) == list(range(1, EPOCHS + 1))
    monkeypatch.setenv(REPORT_VARIABLE, "soon")
    with pytest.raises(Refusal, match=REPORT_VARIABLE):
        Job.of({}, "", Folder("run"), "owner")


def listening(team: Team, pace: float) -> list[int]:
    """The calls, of five hundred, at which there is news of a machine and later of another."""
    asked: list[int] = []

    def ask() -> frozenset[str]:
        asked.append(0)
        return frozenset("ab"[: len(asked) // 3])

    notices = PreemptionNotices(team, ask, lambda machines: None, 0.01)
    heard = []
    for call in range(500):
        time.sleep(pace)
        if notices():
            heard.append(call)
    return heard


@pytest.mark.long
def test_all_workers_hear_of_a_machine_at_the_same_call_and_once() -> None:
    with crew_of(3) as crew:
        heard = crew.all(listening, [0.0002, 0.0005, 0.001])
    assert heard[0] == heard[1] == heard[2]
    assert len(heard[0]) == 2


class Held(Alone):
    """A team whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def gather(self, value: T, /) -> list[T]:
        self.let_go.wait()
        return [value]


@pytest.mark.slow
def test_a_long_wait_is_told_once_and_a_short_one_never() -> None:
    lines, told = list[str](), threading.Event()

    def say(text: str) -> None:
        lines.append(text)
        told.set()

    team = WatchedTeam(held := Held(), 0.5, say)
    held.let_go.set()
    team.gather(3)
    assert not lines
    held.let_go.clear()
    waiting = threading.Thread(target=team.gather, args=[3])
    waiting.start()
    assert told.wait(60)
    time.sleep(2.5)  # time for the thread to look twice more
    held.let_go.set()
    waiting.join()
    team.close()
    assert len(lines) == 1
    assert lines[0].startswith("worker 0 of 1 has waited ")
