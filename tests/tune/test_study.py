"""What a sweep tries: by each way to search, after a pause, and never twice."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def end(study: OptunaStudy, number: int, values: dict[str, Any]) -> None:
    study.record_result(Result(number, values, "finished", figures=figures(values)))


def tried(study: OptunaStudy) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a sweep to its end, one trial after another."""
    while setting := study.next_trial():
        yield setting.number, setting.values
        end(study, setting.number, setting.values)


@pytest.mark.parametrize(
    "search",
    ["tpe", *slow("nsga2", "grid", "random")],
)
def test_a_sweep_that_was_paused_tries_what_one_without_a_pause_tries(
    search: str, tmp_path: Path
) -> None:
    folders = whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in folders:
        folder.mkdir()
    explored = space(search=search, trials=6)
    expected = list(tried(OptunaStudy(explored, whole)))
    paused = tried(OptunaStudy(explored, parts))
    first = [next(paused) for _ in range(4)]  # the fourth has begun, and is not told of
    rest = list(tried(OptunaStudy(explored, parts)))
    assert rest[0] == first[3]
    assert first[:3] + rest == expected
    assert [number for number, _ in expected] == list(range(1, 7))
    assert [result.number for result in OptunaStudy(explored, parts).results] == list(range(1, 7))
    assert OptunaStudy(explored, parts).next_trial() is None


def killed_after(transactions: int, explored: Space, folder: Path) -> bool:
    """Run a sweep in a process that ends before it writes to the database once more.

    Return whether it ended so.
    """
    process = multiprocessing.get_context("fork").Process(
        target=run_until, args=(transactions, explored, folder)
    )
    process.start()
    process.join()
    return process.exitcode == KILLED


def run_until(transactions: int, explored: Space, folder: Path) -> None:
    """Run a sweep, and end this process after some transactions."""
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
        ("tpe", 3),
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
    crashes = 0
    while killed_after(crashes, explored, shutil.copytree(begun, tmp_path / str(crashes))):
        study = OptunaStudy(explored, tmp_path / str(crashes))
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


@pytest.mark.parametrize("name", ["50%20x?", "{x} a#b &c=d;e"])
def test_the_ledger_lies_in_its_folder_whatever_the_folder_is_called(
    name: str, tmp_path: Path
) -> None:
    (folder := tmp_path / name).mkdir()
    list(tried(OptunaStudy(space(trials=2), folder)))
    assert {path.name for path in folder.iterdir()} == {FILE}
    assert [*tmp_path.iterdir()] == [folder]
    assert [result.number for result in OptunaStudy(space(trials=2), folder).results] == [1, 2]
    assert [trial.number for trial in read_trials(folder)] == [0, 1]


def test_a_grid_that_version_0_2_0_stored_beforehand_goes_on(tmp_path: Path) -> None:
    """It was killed while it drew the second trial."""
    axes = [{"key": "model.latent", "choice": [2, 4, 8]}]
    explored = space(search="grid", axes=axes, trials=4)
    old = OptunaStudy(explored, tmp_path).study
    for latent in (2, 4, 8):
        old.enqueue_trial({"model.latent": str(latent)})
    first, _ = old.ask(), old.ask()
    first.set_user_attr("values", explored.suggest(first))
    found = [
        (number, values["model.latent"])
        for number, values in tried(OptunaStudy(explored, tmp_path))
    ]
    assert found[:3] == [(1, 2), (2, 4), (3, 8)]
    assert [number for number, _ in found] == [1, 2, 3, 4]


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
            end(study, setting.number, setting.values)
    states = [trial.state.name for trial in study.study.get_trials()]
    assert 0 < halted < 8
    assert (states.count("PRUNED"), states.count("COMPLETE")) == (halted, 8 - halted)
    best = max(study.results, key=lambda result: result.figures.get("val_bound", -1e9))
    assert best.number == study.study.best_trial.number + 1


def test_halving_compares_the_same_epochs_however_many_are_told_of_at_once(tmp_path: Path) -> None:
    """The third trial is worse than the second at each epoch, and both improve."""
    found = []
    for at_once in (1, 2):
        (folder := tmp_path / str(at_once)).mkdir()
        study = OptunaStudy(space(scheduler="asha", trials=3, **WITHIN), folder)
        while trial := study.next_trial():
            number = trial.number
            curve = [EndedEpoch(epoch, -number - 9 / epoch) for epoch in (1, 2)]
            parts = [curve[begin : begin + at_once] for begin in range(0, 2, at_once)]
            if any(study.should_stop(number, part) for part in parts):
                study.record_result(Result(number, trial.values, state="halted"))
            else:
                end(study, number, trial.values)
        ended = study.study.get_trials()
        found.append([(t.state.name, t.intermediate_values, t.system_attrs) for t in ended])
    assert [state for state, *_ in found[0]] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert found[0] == found[1]


def test_epochs_that_are_trained_again_are_not_told_twice(tmp_path: Path) -> None:
    """Optuna would warn, which is an error here."""
    study = OptunaStudy(space(scheduler="median", **WITHIN), tmp_path)
    setting = study.next_trial()
    assert setting
    for pairs in ([(1, -3.0), (2, -2.0)], [(2, -2.0), (3, -1.0)]):
        epochs = [EndedEpoch(epoch, bound) for epoch, bound in pairs]
        assert not study.should_stop(setting.number, epochs)
    (trial,) = [trial for trial in study.study.get_trials() if trial.number == setting.number - 1]
    assert trial.intermediate_values == {1: -3.0, 2: -2.0, 3: -1.0}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "grid of an interval": (
        WITHIN | {"search": "grid"},
        r"axes\[0\] \(model.latent\): an interval has no grid",
    ),
    "two figures": (
        {"scheduler": "asha", "axes": TREE["axes"][1:2]},
        "scheduler: asha serves one figure",
    ),
    "bounds that differ": (
        {"scheduler": "median", "metrics": {"hoyer": "max"}},
        "scheduler: median compares bounds",
    ),
    "seeds twice": (
        {"seeds": 3, "axes": [{"key": "train.seed", "choice": [1, 2]}]},
        r"seeds: 3 repeats every trial",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_searched_is_refused(name: str) -> None:
    fields, message = REFUSED[name]
    with pytest.raises(Refusal, match=message):
        space(**fields)


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


def test_a_sweep_whose_first_trials_failed_waits_for_those_that_train(tmp_path: Path) -> None:
    """Also after a resume, which goes on with the trial that was interrupted."""
    explored = space(trials=6)
    study = OptunaStudy(explored, tmp_path)
    numbers = [trial.number for trial in (study.next_trial() for _ in range(4)) if trial]
    for number in numbers[:FAILURES_TO_GIVE_UP]:
        fail(study, number)
    assert study.next_trial() is None
    assert (study.waits, study.is_done, study.all_failed) == (True, False, False)
    shutil.copytree(tmp_path, copied := tmp_path / "copied")
    fail(given_up := OptunaStudy(explored, copied), 4)
    assert (given_up.waits, given_up.is_done, given_up.all_failed) == (False, True, True)
    study = OptunaStudy(explored, tmp_path)
    assert (study.waits, study.is_done) == (False, False)
    trial = study.next_trial()
    assert trial is not None
    assert trial.number == 4
    assert study.waits
    end(study, 4, study.values(4))
    assert (study.waits, study.is_done, study.all_failed) == (False, False, False)
    assert [number for number, _ in tried(study)] == [5, 6]
