"""Populations: who is replaced by whom, which settings a branch has, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.files.refusal import Refusal
from distvae.tune.axes import Choice, Interval
from distvae.tune.early_stopping import below_median, halves, is_rung
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.population import INHERITED, choose_replacements, perturb
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import Space, count_replaced, count_turns
from distvae.tune.space_files import read_space
from distvae.tune.validation import validate_space

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
OF_CHILDREN = space(axes=[{"key": "estep.children", "int": [1, 4]}])
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


def test_of_equals_the_earlier_is_better() -> None:
    chosen = choose_replacements(dict.fromkeys(range(1, 9), 1.0))
    assert [(each.loser, each.better) for each in chosen] == [(8, 1), (7, 2)]


def drawn(chance: np.random.Generator) -> dict[str, Any]:
    """Settings of a first trial."""
    values: dict[str, Any] = {}
    for axis in SPACE.axes:
        if isinstance(axis.span, Choice):
            values[axis.key] = axis.span.values[chance.integers(len(axis.span.values))]
        elif isinstance(axis.span.low, int):
            values[axis.key] = int(chance.integers(axis.span.low, int(axis.span.high) + 1))
        else:
            values[axis.key] = float(chance.uniform(axis.span.low, axis.span.high))
    return values


@given(st.integers(0, 2**32))
def test_a_branch_has_other_settings_within_the_axes_and_the_seed_of_its_better(seed: int) -> None:
    values = drawn(np.random.default_rng(seed))
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


@given(st.integers(0, 2**32), st.integers(0, 9))
def test_the_seed_of_a_repeated_trial_is_inherited_too(seed: int, own: int) -> None:
    values = {"estep.children": 2, "train.seed": own}
    found = perturb(OF_CHILDREN, values, np.random.default_rng(seed))
    assert found["train.seed"] == own
    assert found["estep.children"] in {1, 3, 4}


@given(st.integers(0, 2**32))
def test_a_setting_at_the_end_of_its_axis_moves_back(seed: int) -> None:
    for value in (1, 4):
        found = perturb(OF_CHILDREN, {"estep.children": value}, np.random.default_rng(seed))
        assert found["estep.children"] in {1, 2, 3, 4} - {value}


def test_the_trials_of_a_population_are_counted() -> None:
    assert [count_turns(epochs, 50) for epochs in (1, 50, 51, 100, 101, 300)] == [0, 0, 1, 1, 2, 5]
    assert [count_replaced(size) for size in (4, 7, 8, 12)] == [1, 1, 2, 3]
    assert SPACE.count == 8 + 5 * 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a shape": ({"axes": [{"key": "model.latent", "int": [8, 9]}]}, "gives their shape"),
    "states kept": ({"axes": [{"key": "estep.states", "int": [8, 16]}]}, "gives their shape"),
    "no judge": ({"judge": None}, "population replaces trials by a metric"),
    "no random search": ({"search": "tpe"}, "search: tpe"),
    "too few": ({"trials": 3}, "a population of 3; at least 4"),
    "patience": ({"fixed": {"train.patience": 3}}, "train.patience: 3"),
    "noise": ({"fixed": {"train.stop_at_noise": True}}, "train.stop_at_noise: true"),
    "seeds": ({"seeds": 2, "axes": TREE["axes"][:1]}, "a trial is judged by one run"),
    "nothing to change": (
        {"axes": [{"key": "train.seed", "choice": [1, 2]}]},
        "one that may change while a model trains",
    ),
    "no such metric": ({"judge": {"interval": 2, "metric": "psnr"}}, "judge.metric: psnr is not"),
    "no interval": ({"judge": {"metric": "bound"}}, "judge: .* an interval in epochs expected"),
    "no such field": ({"judge": {"interval": 2, "by": "bound"}}, "judge.by: no such field"),
    "nobody asks": ({"scheduler": "none"}, "judge: nobody asks it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_population_can_be_is_refused(name: str) -> None:
    fields, message = REFUSED[name]
    with pytest.raises(Refusal, match=message):
        space(**fields)


def test_asha_of_several_metrics_is_judged_by_one_of_them() -> None:
    judged = space(scheduler="asha", judge={"interval": 2, "metric": "bound", "sample": 9})
    assert judged.judge is not None
    assert (judged.judge.metric, judged.judge.sample) == ("bound", 9)


def test_rungs_are_four_times_as_far_apart_each_time() -> None:
    assert [epoch for epoch in range(1, 200) if is_rung(epoch, 3)] == [3, 12, 48, 192]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 5))
def test_halving_goes_on_with_the_best_quarter_so_far(others: list[int], own: int) -> None:
    """Optuna's rule: as good as the trial at the last place of the best quarter, or the best."""
    reached = {number: {2: float(worth)} for number, worth in enumerate(others)}
    ranked = sorted([*others, own], reverse=True)
    least = ranked[max(len(ranked) // 4 - 1, 0)]
    assert halves({2: float(own)}, reached, 2, 2) == (own < least)
    assert not halves({2: float(own)}, reached, 4, 2)


def test_the_median_of_finished_trials_stops_those_whose_best_is_below() -> None:
    finished = {number: {2: float(number)} for number in range(5)}
    assert below_median({2: 1.9}, finished, 2)
    assert not below_median({2: 2.0}, finished, 2)
    assert not below_median({1: 2.0, 2: 1.0}, finished, 2)
    assert below_median({2: 1.9, 3: 2.0}, finished, 2), "what came later, as after a resume"
    assert not below_median({2: 0.0}, dict(list(finished.items())[:4]), 2)


@pytest.mark.parametrize("scheduler", ["asha", "median"])
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
