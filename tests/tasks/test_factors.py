"""Measures of disentanglement on codes whose disentanglement is known."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr

from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.tasks.evaluate import score_run
from distvae.tasks.factors import importances, information_gap, predictability_gap
from distvae.train.run import Run
from distvae.train.session import fit

ROWS, COUNTS = 1500, (3, 6, 10)
ORDERED = (False, True, True)
SHAPE_IS_CONSTANT = 3
"""A seed of sprites whose two test images have only the shape in common."""
Codes = NDArray[np.float32]


def levels() -> np.ndarray:
    """Independent factors, each level as likely as any other."""
    random = np.random.default_rng(0)
    return np.stack([random.integers(0, count, ROWS) for count in COUNTS], -1)


def standard(values: np.ndarray) -> Codes:
    """Codes that are factors, to scale."""
    return np.asarray((values - values.mean(0)) / values.std(0), np.float32)


def noise(count: int) -> Codes:
    return np.random.default_rng(1).normal(size=(ROWS, count)).astype(np.float32)


def measured(codes: Codes, values: np.ndarray) -> tuple[float, ...]:
    """Return MIG, SAP, disentanglement and completeness."""
    sap = predictability_gap(codes, values, ORDERED[: values.shape[1]])
    return information_gap(codes, values), sap, *importances(codes, values)[:2]


def test_codes_are_as_disentangled_as_they_were_made() -> None:
    values = levels()
    shuffled = np.concatenate([noise(2), standard(values)[:, [2, 0, 1]]], 1)
    assert min(measured(shuffled, values)) > 0.95
    assert max(measured(noise(3), values)) < 0.05
    values = values[:, :2]
    twice = standard(values)[:, [0, 0, 1, 1]] + np.float32(0.01) * noise(4)
    mig, sap, disentangled, complete = measured(twice, values)
    assert max(mig, sap) < 0.05
    assert disentangled > 0.95
    assert complete < 0.75


def test_gaps_of_small_examples_are_those_worked_out_by_hand() -> None:
    """One fair bit. The first value of the code is the bit; the second agrees with it in three of
    four. Of an ordered factor, the gap is of squared correlations.
    """
    bit = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    codes = np.stack([bit, [0, 0, 0, 1, 1, 1, 1, 0]], -1).astype(np.float32)
    second = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    expected = (math.log(2) - second) / math.log(2)
    assert information_gap(codes, bit[:, None]) == pytest.approx(expected)
    level = np.arange(8)
    codes = np.stack([level, level % 4, np.ones(8)], -1).astype(np.float32)
    second = float(pearsonr(level % 4, level).statistic)
    assert predictability_gap(codes, level[:, None], (True,)) == pytest.approx(1 - second**2)


def test_a_run_on_sprites_is_measured_by_the_factors_that_vary(tmp_path: Path) -> None:
    factors = ["mig", "dci", "sap"]
    names = ["iw_bound", "probe_linear", *factors]
    tree = {
        "data": {"kind": "sprites", "rows": 300, "size": 16},
        "model": {"latent": 4, "hidden": [16], "likelihood": "bernoulli"},
        "estep": {"hidden": [16], "input": "raw"},
        "train": {"epochs": 1, "device": "cpu"},
        "eval": {"metrics": names, "importance": 5},
    }
    config = from_dict(tree)
    list(fit(config, open_dataset(config.data), tmp_path / "run", recipe="tiny"))
    run = Run.open(tmp_path / "run")
    summary = score_run(run, "all").summary
    assert {*names, "dci_completeness", "dci_informativeness", "iw_bound_row_std"} <= set(summary)
    assert summary["images"] == 300
    run.config = run.config.with_("eval", metrics=factors)
    run.config = run.config.with_("data", rows=20, seed=SHAPE_IS_CONSTANT)
    judgement = score_run(run, "test")
    assert all(math.isfinite(judgement.summary[name]) for name in factors)
    note = "shape: without variation in split 'test', left out of mig, dci and sap"
    assert judgement.notes == [note]
    run.config = run.config.with_("data", rows=10)
    constant = r"eval\.metrics: shape, scale, rotation, x, y never vary in split 'test'"
    with pytest.raises(Refusal, match=constant):
        score_run(run, "test")
