"""Known atoms: scores of dictionaries that are the truth, and dictionaries that are learned."""

from pathlib import Path

import numpy as np
import pytest

import distvae
from distvae.config import AtomsData
from distvae.config.recipes import load
from distvae.data.dataset import Rows
from distvae.data.generated import AtomsFamily
from distvae.files.refusal import Refusal
from distvae.tasks.baselines import score_baseline
from distvae.tasks.evaluate import score_run
from distvae.tasks.truth import compare_with_atoms, match_atoms, mean_correlation
from distvae.train.run import Run

DATA = AtomsData(atoms=12, active=2, rows=300)
TINY = {"data.atoms": 10, "data.active": 2, "data.rows": 300, "model.latent": 10}


def test_the_truth_in_another_order_scale_and_sign_has_perfect_scores() -> None:
    family, chance = AtomsFamily(DATA), np.random.default_rng(0)
    order, scale = chance.permutation(12), chance.uniform(0.5, 2, 12).astype(np.float32)
    scale[:3] *= -1
    known = {
        split: codes.dense(0, DATA.rows)[:, order] / scale
        for split, codes in family.codes().items()
    }
    rows = family.open().splits

    def encode(x: Rows) -> np.ndarray:
        (split,) = [name for name in rows if np.array_equal(rows[name][:], x[:])]
        return known[split]

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
    assert mean_correlation(codes, truth[:, :2]) == pytest.approx(np.mean(expected), abs=1e-5)
    constant = np.concatenate([truth[:, :2], np.ones((50, 1), np.float32)], 1)
    assert mean_correlation(codes, constant) == pytest.approx(np.mean(expected), abs=1e-5)
    third = sum(expected) / 3
    assert mean_correlation(codes, truth) == pytest.approx(third, abs=1e-5)


def test_a_tiny_dictionary_is_recovered(tmp_path: Path) -> None:
    settings = {"model.cycles": 4, "model.limit": 4, "train.epochs": 60, "train.threads": 1}
    run = distvae.train("atoms-ssc", settings={**TINY, **settings}, out=tmp_path / "run")
    summary = score_run(Run.open(run.path), progress=False).summary
    assert summary["matched"] == 1
    assert summary["mcc_ood"] > 0.95


@pytest.mark.parametrize("peer", ["topk", "dictionary-learning"])
def test_a_baseline_recovers_more_than_random_atoms(peer: str) -> None:
    config = load("atoms-ssc", {**TINY, "train.epochs": 10, "train.batch": 50, "train.rate": 1e-2})
    family = AtomsFamily(config.data)
    random = np.random.default_rng(0).normal(size=(10, config.data.dims)).astype(np.float32)
    scores = score_baseline(peer, config)
    assert scores["cosine"] > match_atoms(random, family.atoms()).mean()
    assert scores["mcc"] > 0.3


def test_other_methods_are_refused() -> None:
    with pytest.raises(Refusal, match="pca-3: no method for data of known atoms; topk, dict"):
        score_baseline("pca-3", load("atoms-ssc", TINY))
