"""What a sweep tries: by each way to search, after a pause, and never twice."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Connection, Engine, event

from distvae.files.refusal import Refusal
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import Space, read_space
from distvae.tune.study import FAILURES_TO_GIVE_UP, FILE, OptunaStudy, read_trials
from distvae.tune.validation import validate_space
from tests.slowly import slow

TREE: dict[str, Any] = {
    "base": "mnist-vae",
    "metrics": {"squared_error": "min", "hoyer": "max"},
    "trials": 12,
    "axes": [
        {"key": "model.kind", "choice": ["vae", "vsc"]},
        {"key": "model.latent", "choice": [2, 4, 8]},
        {"key": "model.alpha", "choice": [0.2, 0.5], "when": {"model.kind": "vsc"}},
    ],
}
WITHIN = {"axes": [{"key": "model.latent", "int": [2, 64]}], "metrics": {"val_bound": "max"}}
"""Trials of one model, ranked by their bounds."""
KILLED = 9
"""How a process ended that was killed."""


def space(**fields: Any) -> Space:
    read = read_space("space", TREE | fields)
    validate_space(read)
    return read


def figures(values: dict[str, Any]) -> dict[str, float]:
    """What trials with these values are worth."""
    error = abs(values["model.latent"] - 4) + values.get("model.alpha", 0.3)
    return {"squared_error": error, "hoyer": 1 / values["model.latent"], "val_bound": -error}


def end(study: OptunaStudy, number: int, state: Literal["finished", "failed"] = "finished") -> None:
    values = study.values(number)
    scores = figures(values) if state == "finished" else {}
    study.record_result(Result(number, values, state, figures=scores))


def tried(study: OptunaStudy) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a sweep to its end, one trial after another."""
    while setting := study.next_trial():
        yield setting.number, setting.values
        end(study, setting.number)


@pytest.mark.parametrize("begun", [False, True])
def test_trials_that_an_earlier_version_stored_before_their_values_are_refused(
    begun: bool, tmp_path: Path
) -> None:
    stored = OptunaStudy(space(), tmp_path).study
    stored.enqueue_trial({"model.kind": "vae", "model.latent": 2})
    if begun:
        stored.ask()
    with pytest.raises(Refusal, match=r"version 0\.2\.0 stored trials .*; --force, .* expected"):
        OptunaStudy(space(), tmp_path)


@pytest.mark.parametrize("search", ["tpe", *slow("nsga2", "grid", "random")])
def test_a_sweep_that_was_paused_tries_what_one_without_a_pause_tries(
    search: str, tmp_path: Path
) -> None:
    """Its file lies in its folder, whatever the folder is called."""
    whole, parts = tmp_path / "whole", tmp_path / "{x} 50%20 a#b?&c=d;e"
    whole.mkdir()
    parts.mkdir()
    explored = space(search=search, trials=5)
    expected = list(tried(OptunaStudy(explored, whole)))
    paused = tried(OptunaStudy(explored, parts))
    first = [next(paused) for _ in range(3)]  # the third has begun, and is not told of
    rest = list(tried(OptunaStudy(explored, parts)))
    assert rest[0] == first[2]
    assert first[:2] + rest == expected
    assert [number for number, _ in expected] == list(range(1, 6))
    again = OptunaStudy(explored, parts)
    assert [result.number for result in again.results] == list(range(1, 6))
    assert again.is_done
    assert again.next_trial() is None
    assert {path.name for path in parts.iterdir()} == {FILE}
    assert {*tmp_path.iterdir()} == {whole, parts}
    assert [trial.number for trial in read_trials(parts)] == list(range(5))


def run_until(transactions: int, explored: Space, folder: Path) -> None:
    """Run a sweep, and end this process before it writes to the database once more."""
    left = transactions

    def count(_: Connection) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(KILLED)

    study = OptunaStudy(explored, folder)
    event.listen(Engine, "commit", count)
    list(tried(study))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "every"),
    [
        ("tpe", 5),
        *(
            pytest.param(name, 1, marks=pytest.mark.long)
            for name in ("tpe", "random", "nsga2", "grid")
        ),
    ],
)
def test_a_sweep_that_was_killed_at_any_moment_tries_what_one_that_was_not_tries(
    search: str, every: int, tmp_path: Path
) -> None:
    explored = space(search=search, trials=4, seed=2)
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    begun.mkdir()
    OptunaStudy(explored, begun)
    shutil.copytree(begun, whole)
    expected = dict(tried(OptunaStudy(explored, whole)))
    crashes, exit_code = 0, KILLED
    while exit_code == KILLED:
        folder = shutil.copytree(begun, tmp_path / str(crashes))
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=run_until, args=(crashes, explored, folder))
        process.start()
        process.join()
        exit_code = process.exitcode or 0
        study = OptunaStudy(explored, folder)
        list(tried(study))
        found = {result.number: result.values for result in study.results}
        assert found == expected, f"after {crashes} transactions"
        crashes += every
    assert crashes > 10, "four trials take several transactions each"


def test_a_grid_tries_everything_once_and_nothing_else(tmp_path: Path) -> None:
    tree = {name: value for name, value in TREE.items() if name != "trials"}
    kind, _, alpha = TREE["axes"]
    axes = [kind, {"key": "model.latent", "choice": [2, 4]}, alpha]
    explored = read_space("space", tree | {"search": "grid", "axes": axes})
    found = [values for _, values in tried(OptunaStudy(explored, tmp_path))]
    assert found == [{"model.kind": "vae", "model.latent": latent} for latent in (2, 4)] + [
        {"model.kind": "vsc", "model.latent": latent, "model.alpha": alpha}
        for latent in (2, 4)
        for alpha in (0.2, 0.5)
    ]


def test_a_setting_that_was_tried_is_tried_with_another_seed(tmp_path: Path) -> None:
    pinned = space(trials=3).pinned({"model.kind": "vae", "model.latent": 4})
    found = list(iter(OptunaStudy(pinned, tmp_path).next_trial, None))
    assert [trial.number for trial in found] == [1, 2, 3]
    assert [trial.values.get("train.seed") for trial in found] == [None, 1, 2]


@pytest.mark.parametrize("scheduler", ["asha", *slow("median")])
def test_what_does_worse_than_others_is_halted_and_known_as_such(
    scheduler: str, tmp_path: Path
) -> None:
    study, halted = OptunaStudy(space(scheduler=scheduler, trials=8, **WITHIN), tmp_path), 0
    while setting := study.next_trial():
        bound = figures(setting.values)["val_bound"]
        if any(
            study.should_stop(setting.number, [EndedEpoch(epoch, bound - 1 / epoch)])
            for epoch in range(1, 6)
        ):
            study.record_result(Result(setting.number, setting.values, state="halted"))
            halted += 1
        else:
            end(study, setting.number)
    states = [trial.state.name for trial in study.stored()]
    assert 0 < halted < 8
    assert (states.count("PRUNED"), states.count("COMPLETE")) == (halted, 8 - halted)
    best = max(study.results, key=lambda result: result.figures.get("val_bound", -1e9))
    assert best.number == study.study.best_trial.number + 1


def test_halving_compares_the_same_epochs_however_many_are_told_of_at_once_or_again(
    tmp_path: Path,
) -> None:
    """The third trial is worse than the second at each epoch, and both improve. Optuna would warn
    of an epoch that it is told twice, which is an error here.
    """
    found = []
    for at_once in (1, 2):
        (folder := tmp_path / str(at_once)).mkdir()
        study = OptunaStudy(space(scheduler="asha", trials=3, **WITHIN), folder)
        while trial := study.next_trial():
            number = trial.number
            curve = [EndedEpoch(epoch, -number - 9 / epoch) for epoch in (1, 2)]
            parts = [curve[begin : begin + at_once] for begin in range(0, 2, at_once)]
            if any(study.should_stop(number, part) for part in [parts[0], *parts]):
                study.record_result(Result(number, trial.values, state="halted"))
            else:
                end(study, number)
        ended = study.stored()
        found.append([(t.state.name, t.intermediate_values, t.system_attrs) for t in ended])
    assert [state for state, *_ in found[0]] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert found[0] == found[1]


def test_a_sweep_whose_first_trials_failed_waits_for_those_that_train_or_is_given_up(
    tmp_path: Path,
) -> None:
    """Also after a resume, which goes on with the trial that was interrupted."""
    explored = space(trials=6)

    def state(study: OptunaStudy) -> tuple[bool, bool, bool]:
        return study.waits, study.is_done, study.all_failed

    study = OptunaStudy(explored, tmp_path)
    begun = [trial.number for trial in (study.next_trial() for _ in range(4)) if trial]
    assert begun == [1, 2, 3, 4]
    for number in range(1, FAILURES_TO_GIVE_UP + 1):
        end(study, number, "failed")
    assert study.next_trial() is None
    assert state(study) == (True, False, False)
    shutil.copytree(tmp_path, copied := tmp_path / "copied")
    end(given_up := OptunaStudy(explored, copied), 4, "failed")
    assert state(given_up) == (False, True, True)
    study = OptunaStudy(explored, tmp_path)
    assert state(study) == (False, False, False)
    trial = study.next_trial()
    assert trial is not None
    assert trial.number == 4
    assert study.waits
    end(study, 4)
    assert state(study) == (False, False, False)
    assert [number for number, _ in tried(study)] == [5, 6]
