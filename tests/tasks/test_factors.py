"""Measures of disentanglement on codes whose disentanglement is known."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr

from distvae.config import from_dict
from distvae.data import factors_of, open_dataset
from distvae.files.refusal import Refusal
from distvae.tasks.evaluate import score_run
from distvae.tasks.factors import importances, information_gap, predictability_gap
from distvae.tasks.measures import refuse_impossible_measures
from distvae.train.run import Run
from distvae.train.session import fit

ROWS, COUNTS = 3000, (3, 6, 10)
ORDERED = (False, True, True)
Codes = NDArray[np.float32]


def levels() -> np.ndarray:
    """Independent factors, each level as likely as any other."""
    random = np.random.default_rng(0)
    return np.stack([random.integers(0, count, ROWS) for count in COUNTS], -1)


def standard(values: np.ndarray) -> Codes:
    """Codes that are factors, to scale."""
    return np.asarray((values - values.mean(0)) / values.std(0), np.float32)


def noise(count: int = 3) -> Codes:
    return np.random.default_rng(1).normal(size=(ROWS, count)).astype(np.float32)


def sap(codes: Codes, values: np.ndarray) -> float:
    return predictability_gap(codes, values, ORDERED)


def dci(codes: Codes, values: np.ndarray) -> float:
    return importances(codes, values)[0]


def completeness(codes: Codes, values: np.ndarray) -> float:
    return importances(codes, values)[1]


ALL = [information_gap, sap, dci, completeness]


@pytest.mark.parametrize("measure", ALL)
def test_codes_that_are_the_factors_are_disentangled(
    measure: Callable[[Codes, np.ndarray], float],
) -> None:
    values = levels()
    shuffled = np.concatenate([noise(2), standard(values)[:, [2, 0, 1]]], 1)
    assert measure(shuffled, values) > 0.95


@pytest.mark.parametrize("measure", ALL)
def test_codes_that_know_nothing_are_not(measure: Callable[[Codes, np.ndarray], float]) -> None:
    assert measure(noise(), levels()) < 0.05


def test_a_factor_that_two_values_know_alike_is_disentangled_but_not_complete() -> None:
    values = levels()[:, :2]
    twice = standard(values)[:, [0, 0, 1, 1]] + np.float32(0.01) * noise(4)
    assert information_gap(twice, values) < 0.05
    assert predictability_gap(twice, values, ORDERED[:2]) < 0.05
    disentangled, complete, _ = importances(twice, values)
    assert disentangled > 0.95
    assert complete < 0.75


def test_the_gap_of_a_small_example_is_that_worked_out_by_hand() -> None:
    """One fair bit. The first value of the code is the bit; the second agrees with it in three of
    four.
    """
    bit = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    codes = np.stack([bit, [0, 0, 0, 1, 1, 1, 1, 0]], -1).astype(np.float32)
    second = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert information_gap(codes, bit[:, None]) == pytest.approx(
        (math.log(2) - second) / math.log(2)
    )


def test_the_predictability_gap_of_an_ordered_factor_is_one_of_squared_correlations() -> None:
    level = np.arange(8)
    codes = np.stack([level, level % 4, np.ones(8)], -1).astype(np.float32)
    second = float(pearsonr(level % 4, level).statistic)
    assert predictability_gap(codes, level[:, None], (True,)) == pytest.approx(1 - second**2)


@pytest.mark.parametrize("latent", [4])
def test_a_run_on_sprites_is_measured_and_one_on_bars_refused(tmp_path: Path, latent: int) -> None:
    names = ["iw_bound", "probe_linear", "mig", "dci", "sap"]
    run = trained(tmp_path, latent, metrics=names, importance=5)
    judgement = score_run(run, "all")
    summary = judgement.summary
    assert {*names, "dci_completeness", "dci_informativeness", "iw_bound_row_std"} <= set(summary)
    assert summary["images"] == 300
    assert all(math.isfinite(value) for value in summary.values())
    assert not judgement.notes
    with pytest.raises(
        Refusal, match=r"eval\.metrics: mig needs the factors .* 'bars'; sprites expected"
    ):
        refuse_impossible_measures(
            from_dict({"data": {"kind": "bars"}, "eval": {"metrics": ["mig"]}})
        )


def trained(folder: Path, latent: int = 4, **judging: Any) -> Run:
    """A run on a few sprites."""
    tree = {
        "data": {"kind": "sprites", "rows": 300, "size": 16},
        "model": {"latent": latent, "hidden": [16], "likelihood": "bernoulli"},
        "estep": {"hidden": [16], "input": "raw"},
        "train": {"epochs": 1, "device": "cpu"},
        "eval": judging,
    }
    config = from_dict(tree)
    for _ in fit(config, open_dataset(config.data), folder / "run", recipe="tiny"):
        pass
    return Run.open(folder / "run")


def test_factors_that_never_vary_are_left_out_with_a_note(tmp_path: Path) -> None:
    run = trained(tmp_path, metrics=["mig", "dci", "sap"])
    run.config = run.config.with_("data", rows=20, seed=alike("shape"))  # two images to judge
    judgement = score_run(run, "test")
    assert all(math.isfinite(judgement.summary[name]) for name in ("mig", "dci", "sap"))
    assert judgement.notes == [
        "shape: without variation in split 'test', left out of mig, dci and sap"
    ]
    run.config = run.config.with_("data", rows=10)
    with pytest.raises(
        Refusal, match=r"eval\.metrics: shape, scale, rotation, x, y never vary in split 'test'"
    ):
        score_run(run, "test")


def alike(factor: str) -> int:
    """The first seed whose two images to test on have one factor in common."""
    for seed in itertools.count():
        known = factors_of(from_dict({"data": {"kind": "sprites", "rows": 20, "seed": seed}}).data)
        assert known is not None
        if list(itertools.compress(known.names, np.ptp(known.levels["test"], axis=0) == 0)) == [
            factor
        ]:
            return seed
    raise AssertionError
