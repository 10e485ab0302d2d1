"""Generated combinations of atoms against their definition: which atoms a row has, how often, and
with which coefficients.
"""

import numpy as np
import pytest

from distvae.config import AtomsData
from distvae.data import open_dataset
from distvae.data.generated import AtomsFamily
from distvae.files.refusal import Refusal

DATA = AtomsData(atoms=40, active=5, rows=4000, seed=3)


def codes_of(split: str) -> np.ndarray:
    return AtomsFamily(DATA).codes()[split].dense(0, DATA.rows)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_are_combinations_of_unit_atoms_with_uniform_coefficients(split: str) -> None:
    atoms, codes = AtomsFamily(DATA).atoms(), codes_of(split)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-6)
    assert atoms.shape == (40, 21)  # 2 * 5 * ln(8) = 20.8
    np.testing.assert_allclose(open_dataset(DATA).splits[split][:], codes @ atoms, atol=1e-5)
    assert set((codes > 0).sum(1)) == {DATA.active}
    values = codes[codes > 0]
    assert values.max() <= 1
    assert values.mean() == pytest.approx(1 / 2, abs=0.01)
    assert values.var() == pytest.approx(1 / 12, abs=0.003)


def test_splits_combine_the_atoms_of_their_definition() -> None:
    for split in ("train", "val"):
        used = codes_of(split) > 0
        first = used[:, 0]
        assert first.mean() == pytest.approx(0.5, abs=0.03)
        # With the first atom 4 of the first half's 19, without it 5 of all 39
        np.testing.assert_allclose(used[first][:, 1:20].mean(0), 4 / 19, atol=0.04)
        assert not used[first][:, 20:].any()
        np.testing.assert_allclose(used[~first][:, 1:].mean(0), 5 / 39, atol=0.04)
    used = codes_of("test") > 0
    assert used[:, 0].all()
    assert not used[:, 1:20].any()
    np.testing.assert_allclose(used[:, 20:].mean(0), 4 / 20, atol=0.03)
    assert not np.array_equal(codes_of("train"), codes_of("val"))


def test_a_seed_gives_the_same_rows_and_another_seed_another_digest() -> None:
    small = AtomsData(atoms=10, active=2, rows=5)
    first, again = open_dataset(small), open_dataset(small)
    np.testing.assert_array_equal(first.splits["train"][:], again.splits["train"][:])
    other = open_dataset(AtomsData(atoms=10, active=2, rows=5, seed=1))
    assert first.digest == again.digest != other.digest
    assert not np.array_equal(first.splits["train"][:], other.splits["train"][:])


def test_atoms_that_cannot_be_combined_are_refused() -> None:
    with pytest.raises(Refusal, match=r"data.active: 6 with data.atoms = 11; at most half"):
        AtomsData(atoms=11, active=6)
