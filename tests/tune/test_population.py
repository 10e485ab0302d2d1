"""Populations: which trials are replaced, by which settings, and how a killed population ends."""

import json
import math
from collections import Counter
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.data import open_dataset
from distvae.track.tracker import read_record
from distvae.train.run_folder import read_info
from distvae.train.session import build_trainer
from distvae.train.step import Rates
from distvae.tune.population import choose_replacements, open_study, perturb
from distvae.tune.recorder import Recorder
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import Interval, Space, read_space
from distvae.tune.study import OptunaStudy, Worth, count_better, halves, is_judged, read_judgments
from distvae.tune.trial import Report, run_trial
from distvae.tune.validation import INHERITED, validate_space
from tests.slowly import slow
from tests.tune.sweeps import recorder_of

TREE: dict[str, Any] = {
    "base": "bars",
    "metrics": {"squared_error": "min", "bound": "max"},
    "trials": 8,
    "search": "random",
    "scheduler": "population",
    "judge": {"interval": 50},
    "axes": [
        {"key": "train.rate", "float": [1e-3, 1e-1], "log": True},
        {"key": "train.clip", "float": [1.0, 3.0]},
        {"key": "estep.children", "int": [1, 4]},
        {"key": "estep.selection", "choice": ["fitness", "uniform", "best"]},
        {"key": "train.seed", "choice": [0, 1, 2, 3]},
    ],
}


def space(**fields: Any) -> Space:
    read = read_space("space", TREE | fields)
    validate_space(read)
    return read


SPACE = space()
WORTHS = st.lists(st.floats(-1e3, 1e3) | st.just(-math.inf), min_size=4, max_size=20)


@given(WORTHS)
def test_the_worst_quarter_is_replaced_by_the_best(values: list[float]) -> None:
    worths = dict(enumerate(values, 1))
    chosen = choose_replacements(worths)
    quarter, ascending = len(values) // 4, sorted(values)
    alive = [value for value in values if value > -math.inf]
    assert len(chosen) == (quarter if alive else 0)
    assert len({each.loser for each in chosen}) == len(chosen)
    assert not {each.loser for each in chosen} & {each.better for each in chosen}
    if chosen:
        assert [worths[each.loser] for each in chosen] == ascending[:quarter]
        assert worths[chosen[0].better] == ascending[-1]
        assert {worths[each.better] for each in chosen} <= set(ascending[-quarter:]) - {-math.inf}


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_branch_has_other_settings_within_the_axes_and_the_seed_of_its_better(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    values = SPACE.suggest(study.ask())
    found = perturb(SPACE, values, np.random.default_rng([seed, 1]))
    assert found == perturb(SPACE, values, np.random.default_rng([seed, 1]))
    assert found != values
    assert list(found) == [axis.key for axis in SPACE.axes]
    for axis in SPACE.axes:
        value: Any = found[axis.key]
        if axis.key in INHERITED:
            assert value == values[axis.key]
        elif isinstance(axis.span, Interval):
            assert axis.span.low <= value <= axis.span.high
            assert type(value) is type(axis.span.low)
        else:
            assert value in axis.span.values
    SPACE.config(found)


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 5))
def test_halving_goes_on_with_the_best_quarter_so_far(others: list[int], own: int) -> None:
    """Optuna's rule: as good as the trial at the last place of the best quarter, or the best."""
    reached = {number: {2: (float(worth),)} for number, worth in enumerate(others)}
    ranked = sorted([*others, own], reverse=True)
    least = ranked[max(len(ranked) // 4 - 1, 0)]
    assert halves({2: (float(own),)}, reached, 2) == (own < least)
    assert not halves({2: (float(own),)}, reached, 4)


def test_halving_judges_at_rungs_and_others_at_each_interval() -> None:
    judge = {"interval": 2}
    halving = space(scheduler="asha", judge=judge)
    assert [epoch for epoch in range(200) if is_judged(halving, epoch)] == [2, 8, 32, 128]
    others = space(scheduler="median", judge=judge)
    assert [epoch for epoch in range(9) if is_judged(others, epoch)] == [2, 4, 6, 8]


POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9)


@given(POINTS)
def test_points_are_better_by_the_fronts_that_optuna_finds(points: list[Worth]) -> None:
    left, better = points, 0
    while True:
        study = optuna.create_study(directions=["maximize"] * 2)
        for point in left:
            study.add_trial(optuna.create_trial(values=point))
        front = {tuple(trial.values) for trial in study.best_trials}
        if points[0] in front:
            break
        better += sum(point in front for point in left)
        left = [point for point in left if point not in front]
    assert count_better(points[0], points[1:]) == better


@pytest.mark.parametrize("scheduler", ["asha", *slow("median")])
def test_trials_are_halted_by_what_they_are_judged_by_and_not_by_bounds(
    scheduler: str, tmp_path: Path
) -> None:
    """The smaller the error the better; a judgment that is not finite is the worst."""
    judge = {"interval": 2, "metric": "squared_error"}
    study = OptunaStudy(space(scheduler=scheduler, judge=judge, search="tpe"), tmp_path)
    halted = []
    for error in (5.0, 6.0, 4.0, 7.0, 3.0, 9.0, 2.0, math.nan):
        trial = study.next_trial()
        assert trial is not None
        folder = tmp_path / "trials" / str(trial.number)
        folder.mkdir(parents=True)
        line = json.dumps({"epoch": 2, "metric": "squared_error", "value": error})
        (folder / "judged.jsonl").write_text(f"{line}\n")
        assert not study.should_stop(trial.number, [EndedEpoch(1, error)])
        if study.should_stop(trial.number, [EndedEpoch(1, 0.0), EndedEpoch(2, error)]):
            halted.append(error)
            study.record_result(Result(trial.number, trial.values, "halted"))
        else:
            figures = {"squared_error": error, "bound": 0.0}
            study.record_result(Result(trial.number, trial.values, "finished", figures=figures))
    assert str(halted) == str([6.0, 7.0, 9.0, math.nan] if scheduler == "asha" else [9.0, math.nan])


def test_trials_that_others_dominate_in_all_metrics_are_halted(tmp_path: Path) -> None:
    """They are judged by their first seed."""
    axes = [{"key": "train.rate", "float": [1e-3, 1e-1]}]
    halved = space(scheduler="asha", judge={"interval": 2}, seeds=2, axes=axes)
    study = OptunaStudy(halved, tmp_path)
    states = []
    for error, bound in ((5.0, 1.0), (4.0, 0.0), (5.0, 0.0), (3.0, 2.0), (6.0, 9.0), (4.0, 1.0)):
        trial = study.next_trial()
        assert trial is not None
        folder = tmp_path / "trials" / str(trial.number)
        folder.mkdir(parents=True)
        judged = {"squared_error": error, "bound": bound}.items()
        lines = [json.dumps({"epoch": 2, "metric": name, "value": value}) for name, value in judged]
        (folder / "judged.jsonl").write_text("\n".join(lines))
        assert not study.should_stop(trial.number, [EndedEpoch(1, 0.0), EndedEpoch(2, 0.0, 1)])
        states.append(study.should_stop(trial.number, [EndedEpoch(2, 0.0)]))
    assert states == [False, False, True, False, False, True]


BARS: dict[str, Any] = {
    "base": "bars",
    "fixed": {
        "data.rows": 40,
        "train.epochs": 6,
        "train.batch": 20,
        "train.threads": 1,
        "train.device": "cpu",
        "estep.states": 8,
        "estep.sweeps": 2,
        "eval.processes": 1,
    },
    "metrics": {"squared_error": "min"},
    "trials": 4,
    "search": "random",
    "scheduler": "population",
    "judge": {"interval": 2, "sample": 20},
    "axes": [
        {"key": "train.rate", "float": [1e-3, 1e-1], "log": True},
        {"key": "estep.children", "int": [1, 4]},
        {"key": "train.seed", "choice": [0, 1]},
    ],
}


def reports(recorder: Recorder) -> Generator[None, None, None]:
    """Run one trial after another, and yield after each report, before it is recorded."""
    while trial := recorder.next_trial():
        recorder.started(trial.number, trial.values)
        for report in run_trial(recorder.trials, *trial):
            yield
            if "epoch" in report:
                recorder.trained(trial.number, [EndedEpoch(report["epoch"], report["bound"])])
            else:
                recorder.ended(trial.number, report, "")


TINY = read_space("tiny", BARS)
Whole = tuple[Path, dict[int, tuple[Any, ...]]]
"""The folder of a sweep, and what was found of each trial."""


def outcome(result: Result) -> tuple[Any, ...]:
    """What a sweep found of a trial, without its time."""
    lineage = result.parent, result.parent_epoch
    return result.values, result.state, result.epoch, result.cause, lineage, result.figures


def finish(out: Path, kill_after: int | None = None) -> dict[int, tuple[Any, ...]]:
    """Run a sweep to its end, and kill it whenever it has made `kill_after` reports."""
    while True:
        recorder = recorder_of(TINY, out)
        done, running = recorder.study.is_done, reports(recorder)
        reported = len([*islice(running, kill_after)])
        assert not (done and reported)
        if reported != kill_after:
            assert open_study(TINY, out).is_done
            return {number: outcome(each) for number, each in recorder.display.results.items()}
        running.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A sweep that nothing disturbs, and its findings."""
    out = tmp_path_factory.mktemp("whole")
    return out, finish(out)


@pytest.mark.slow
def test_a_population_that_is_killed_again_and_again_equals_an_undisturbed_one(
    whole: Whole,
    tmp_path: Path,
) -> None:
    """Killed during an epoch, a judgment, a change of generations or an evaluation."""
    out, expected = whole
    assert finish(tmp_path, kill_after=7) == expected
    for trial in expected:
        folders = [each / "trials" / str(trial) for each in (out, tmp_path)]
        judged, again = map(read_judgments, folders)
        assert judged == again


@pytest.mark.slow
def test_a_population_goes_on_with_those_that_did_not_fail(tmp_path: Path) -> None:
    """Three of four fail at once, and the sweep is killed before the next generation."""
    recorder = recorder_of(TINY, tmp_path)
    for _ in range(4):
        trial = recorder.next_trial()
        assert trial is not None
        recorder.started(trial.number, trial.values)
        last: Report = {"failure": "diverged"}
        if trial.number == 4:
            *_, last = run_trial(recorder.trials, *trial)
        recorder.ended(trial.number, last, "")
    assert not open_study(TINY, tmp_path).is_done
    found = finish(tmp_path)
    states = Counter(state for _, state, *_ in found.values())
    assert states == {"finished": 3, "failed": 3}


def test_a_population_is_given_up_when_all_of_its_members_have_failed(tmp_path: Path) -> None:
    recorder = recorder_of(TINY, tmp_path)
    numbers = []
    while trial := recorder.next_trial():
        assert not recorder.study.all_failed
        recorder.started(trial.number, trial.values)
        recorder.ended(trial.number, {"failure": "diverged"}, "")
        numbers.append(trial.number)
    assert numbers == [1, 2, 3, 4]
    assert recorder.study.all_failed
    assert open_study(TINY, tmp_path).is_done


@pytest.mark.long
def test_a_branch_that_was_recorded_and_not_made_is_made_when_the_sweep_goes_on(
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("distvae.tune.population.branch", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(tmp_path)
    assert not (tmp_path / "trials" / "5").exists()
    assert finish(tmp_path) == whole[1]


@pytest.mark.slow
def test_a_population_keeps_its_size_and_says_whence_each_trial_came(
    whole: Whole,
) -> None:
    out, found = whole
    states = {number: each[1] for number, each in found.items()}
    assert len(found) == TINY.count == 6
    assert list(states.values()).count("finished") == 4
    for number in (5, 6):
        lineage = read_info(out / "trials" / str(number))["lineage"]
        assert lineage["epoch"] == 2 * (number - 4)
        assert found[number][4] == (lineage["parent"], lineage["epoch"])
        assert states[lineage["replaces"]] == "halted"
        assert f"by {number}, of {lineage['parent']}" in found[lineage["replaces"]][3]
        worths = {
            each.name: judged[lineage["epoch"]]["squared_error"]
            for each in (out / "trials").iterdir()
            if lineage["epoch"] in (judged := read_judgments(each))
        }
        assert len(worths) == 4
        assert worths[str(lineage["parent"])] == min(worths.values())
        assert worths[str(lineage["replaces"])] == max(worths.values())
    for number, state in states.items():
        status = read_record(out / "trials" / str(number))["status"]
        assert status == ("KILLED" if state == "halted" else "FINISHED")


@pytest.mark.slow
def test_a_branch_goes_on_from_the_weights_moments_and_populations_of_its_better(
    whole: Whole,
) -> None:
    """Its first bound equals the bound of its parent continued with the branch's settings."""
    out, found = whole
    values, (better, epoch) = found[5][0], found[5][4]
    before, after = TINY.config(found[better][0]), TINY.config(values)
    dataset = open_dataset(before.data)
    trainer = build_trainer(before, dataset)
    assert len([*islice(trainer.run(), epoch)]) == epoch
    trainer.config, trainer.rates = after.train, Rates(after.train, trainer.batches, trainer.device)
    estep: Any = trainer.estep
    estep.config = after.estep
    expected = next(trainer.run())
    first = json.loads((out / "trials" / "5" / "epochs.jsonl").read_text().splitlines()[0])
    assert (first["epoch"], first["val_bound"]) == (epoch + 1, expected.val_bound)
