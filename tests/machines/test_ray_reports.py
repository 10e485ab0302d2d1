"""Ray hears of training now and then, and from all workers of the same epochs."""

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.workers.ray_reports import VARIABLE, RayReports, report_seconds
from distvae.train.team import ALONE, Team
from tests.train.crew import crew_of

EPOCHS = 100


def reported_epochs(team: Team, pace: float, interval: float = 5.0) -> list[int]:
    """The epochs that a worker reports of a hundred, each of so many seconds by its own clock."""
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
    assert report_seconds() == 5.0
    monkeypatch.setenv(VARIABLE, "0")
    assert reported_epochs(ALONE, 0.1, report_seconds()) == list(range(1, EPOCHS + 1))
    monkeypatch.setenv(VARIABLE, "soon")
    with pytest.raises(Refusal, match=VARIABLE):
        report_seconds()
