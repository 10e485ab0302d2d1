"""When a sweep whose first trials failed is given up, and when it goes on."""

from pathlib import Path

from distvae.tune.optuna_study import FAILURES_TO_GIVE_UP, OptunaStudy
from distvae.tune.results import Result
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
