"""Known atoms: scores of dictionaries that are the truth, and dictionaries that are learned."""

from pathlib import Path

import numpy as np
import pytest

from distvae.config import AtomsData, Config
from distvae.config.recipes import load
from distvae.data.dataset import Rows
from distvae.data.generated import AtomsFamily
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.tasks.baselines import score_baseline
from distvae.tasks.evaluate import score_run
from distvae.tasks.truth import compare_with_atoms, match_atoms, mean_correlation
from tests.tasks.conftest import trained

DATA = AtomsData(atoms=12, active=2, rows=300)


def test_the_truth_in_another_order_scale_and_sign_has_perfect_scores() -> None:
    family, chance = AtomsFamily(DATA), np.random.default_rng(0)
    order, scale = chance.permutation(12), chance.uniform(0.5, 2, 12).astype(np.float32)
    scale[:3] *= -1
    codes = {name: each.dense(0, DATA.rows)[:, order] for name, each in family.codes().items()}
    rows = family.open().splits

    def encode(x: Rows) -> np.ndarray:
        (split,) = [name for name in rows if np.array_equal(rows[name][:], x[:])]
        return codes[split] / scale

    scores = compare_with_atoms(family.atoms()[order] * scale[:, None], encode, family)
    assert scores == pytest.approx({"cosine": 1, "matched": 1, "mcc": 1, "mcc_ood": 1}, abs=1e-5)


def test_atoms_without_a_match_count_as_nothing() -> None:
    truth = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(match_atoms(truth[[2, 0]], truth), [1, 0, 1, 0], atol=1e-6)
    turned = np.array([[0.6, 0.8, 0, 0], [0.8, -0.6, 0, 0]], np.float32)
    np.testing.assert_allclose(match_atoms(turned, truth), [0.8, 0.8, 0, 0], atol=1e-6)


def test_the_correlation_is_of_coefficients_that_vary() -> None:
    chance = np.random.default_rng(1)
    truth = chance.normal(size=(50, 3)).astype(np.float32)
    codes = truth[:, [1, 0]] + chance.normal(size=(50, 2)).astype(np.float32)
    expected = [abs(np.corrcoef(truth[:, k], codes[:, 1 - k])[0, 1]) for k in (0, 1)]
    constant = np.concatenate([truth[:, :2], np.ones((50, 1), np.float32)], 1)
    for some, mean in (
        (truth[:, :2], np.mean(expected)),
        (constant, np.mean(expected)),
        (truth, sum(expected) / 3),
    ):
        blocks = [(codes[part], some[part]) for part in (slice(20), slice(20, 50))]
        assert mean_correlation(blocks) == pytest.approx(mean, abs=1e-5)


def tiny(**settings: Plain) -> Config:
    """Return the recipe with ten atoms, two in a row."""
    known = {"data.atoms": 10, "data.active": 2, "data.rows": 300, "model.latent": 10}
    return load("atoms-ssc", {**known, **settings})


@pytest.mark.slow
def test_most_of_a_tiny_dictionary_is_recovered(tmp_path: Path) -> None:
    settings = {"model.cycles": 8, "model.limit": 4, "train.epochs": 60, "train.seed": 1}
    summary = score_run(trained(tiny(**settings), tmp_path / "run"), progress=False).summary
    assert summary["matched"] >= 0.7
    assert summary["mcc"] > 0.8
    assert summary["mcc_ood"] > 0.8


@pytest.mark.parametrize("name", ["topk", pytest.param("lasso", marks=pytest.mark.slow)])
def test_a_baseline_recovers_more_than_random_atoms(name: str) -> None:
    config = tiny(**{"train.epochs": 30, "train.batch": 50, "train.rate": 1e-2})
    assert isinstance(config.data, AtomsData)
    family = AtomsFamily(config.data)
    random = np.random.default_rng(7).normal(size=(10, config.data.dims)).astype(np.float32)
    scores = score_baseline(name, config)
    assert scores["cosine"] > match_atoms(random, family.atoms()).mean()
    assert scores["mcc"] > 0.5


def test_other_methods_are_refused() -> None:
    with pytest.raises(Refusal, match="pca-3: no method for data of known atoms; topk, lasso"):
        score_baseline("pca-3", tiny())
