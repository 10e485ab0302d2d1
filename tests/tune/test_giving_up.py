"""When a sweep whose first trials failed is given up, and when it goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distvae.tune.optuna_study import FAILURES_TO_GIVE_UP, OptunaStudy
from distvae.tune.results import Result
from distvae.tune.stacks.process import StackReport
from distvae.tune.stacks.stacked import AHEAD, Process, StackedSweep
from distvae.tune.trial import Report
from tests.tune.sweeps import chosen
from tests.tune.test_optuna_study import end, space, tried


def test_a_sweep_without_hope_is_given_up(tmp_path: Path) -> None:
    study, begun = OptunaStudy(space(), tmp_path), 0
    while setting := study.next_trial():
        begun += 1
        study.record_result(
            Result(setting.number, setting.values, state="failed", cause="no memory")
        )
    assert begun == FAILURES_TO_GIVE_UP
    assert study.all_failed


def fail(study: OptunaStudy, number: int) -> None:
    study.record_result(Result(number, study.values(number), "failed", cause="diverged"))


def with_first_failed(folder: Path) -> OptunaStudy:
    """A sweep of which the first trials have failed, and another one still trains."""
    study = OptunaStudy(space(), folder)
    numbers = [trial.number for trial in (study.next_trial() for _ in range(4)) if trial]
    for number in numbers[:FAILURES_TO_GIVE_UP]:
        fail(study, number)
    return study


def test_a_sweep_whose_first_trials_failed_waits_for_those_that_train(tmp_path: Path) -> None:
    study = with_first_failed(tmp_path)
    assert study.next_trial() is None
    assert (study.waits, study.is_done, study.all_failed) == (True, False, False)
    end(study, 4, study.values(4))
    assert (study.waits, study.is_done, study.all_failed) == (False, False, False)
    assert [number for number, _ in tried(study)] == [*range(5, 13)]


def test_a_sweep_is_given_up_when_the_last_that_trained_has_failed_too(tmp_path: Path) -> None:
    study = with_first_failed(tmp_path)
    fail(study, 4)
    assert study.next_trial() is None
    assert (study.waits, study.is_done, study.all_failed) == (False, True, True)


def test_an_interrupted_trial_goes_on_though_the_first_failed(tmp_path: Path) -> None:
    with_first_failed(tmp_path)
    study = OptunaStudy(space(), tmp_path)
    assert (study.waits, study.is_done) == (False, False)
    trial = study.next_trial()
    assert trial is not None
    assert trial.number == 4
    assert study.waits


def end_all(sweep: StackedSweep, process: Process, last: Report) -> None:
    """Record that all trials of a process have ended so."""
    for number, trial in process.members.items():
        sweep.recorder.started(number, trial.values)
        sweep._record(number, StackReport([], last))
    process.members.clear()


FINISHED: Report = {"figures": {"squared_error": 0.5, "hoyer": 0.5}}
FAILED: Report = {"failure": "diverged"}


@pytest.mark.parametrize("last", [FINISHED, FAILED])
def test_after_three_failures_the_others_begin_if_one_of_those_that_train_finishes(
    last: Report, sweep_of: Callable[..., StackedSweep]
) -> None:
    """Three trials of one shape fail; a fourth, asked for with them, has another."""
    sweep = sweep_of(4, 1)
    (process,) = sweep.processes
    assert chosen(sweep, process) == [2, 2, 2]
    end_all(sweep, process, FAILED)
    assert chosen(sweep, process) == [4]
    assert not sweep.exhausted
    end_all(sweep, process, last)
    assert chosen(sweep, process) == ([4, 4] if last is FINISHED else [])
    assert sweep.recorder.study.all_failed == (last is FAILED)


def test_no_more_is_asked_for_than_begins_before_a_trial_has_finished(
    sweep_of: Callable[..., StackedSweep],
) -> None:
    sweep = sweep_of(2, 1)
    (process,) = sweep.processes
    assert chosen(sweep, process) == [2, 2]
    assert not sweep._wants_more(AHEAD)
    end_all(sweep, process, FINISHED)
    assert chosen(sweep, process) == [2]
    assert sweep._wants_more(AHEAD)
