"""Facts about tables, beside NumPy's own reductions in double precision."""

import json
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from distvae.numerics import arrays
from distvae.numerics.arrays import FLOOR, Facts

Array = arrays.Values


def table(rows: int, width: int, gaps: float, low: float, seed: int) -> Array:
    """Return rows far from zero with missing values. The last column may have no values."""
    chance = np.random.default_rng(seed)
    x = (low + 1000 + chance.exponential(size=(rows, width))).astype(np.float32)
    x[chance.random(x.shape) < gaps] = np.nan
    if gaps:
        x[:, -1] = np.nan
    return x


def check(found: Facts, x: Array) -> None:
    """Hold facts against the whole table."""
    wide, observed = x.astype(np.float64), ~np.isnan(x)
    assert (found.rows, found.missing) == (len(x), int(np.isnan(x).sum()))
    assert_array_equal(found.values.count, observed.sum(0))
    for k, seen in enumerate(observed.T):
        values = wide[seen, k]
        if not len(values):
            lost = (found.low[k], found.high[k], found.values.mean[k], found.values.variance[k])
            assert np.isnan(lost).all()
            continue
        assert (found.low[k], found.high[k]) == (values.min(), values.max())
        assert_allclose(found.values.mean[k], values.mean(), rtol=1e-12)
        assert_allclose(found.values.variance[k], values.var(), rtol=1e-9, atol=1e-12)
        if found.logarithms:
            logarithms = np.log(x[seen, k] + np.float32(FLOOR)).astype(np.float64)
            assert_allclose(found.logarithms.mean[k], logarithms.mean(), rtol=1e-12)
            assert_allclose(found.logarithms.variance[k], logarithms.var(), rtol=1e-6, atol=1e-12)
    negative = bool((wide[observed] < 0).any())
    assert (found.logarithms is None) == negative
    if observed.any():
        assert found.range == (float(np.nanmin(x)), float(np.nanmax(x)))


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.0, -1001.0]),
    st.lists(st.integers(1, 59), max_size=4),
)
def test_facts_are_those_of_numpy_however_the_rows_are_cut_and_return_from_json(
    rows: int, width: int, gaps: float, low: float, cuts: list[int]
) -> None:
    x = table(rows, width, gaps, low, rows)
    parts = [part for part in np.split(x, sorted(min(cut, rows) for cut in cuts)) if len(part)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "TOGETHER", 7 * width)
        found = reduce(add, map(Facts.of, parts))
    check(found, x)
    text = json.dumps(found.record(), allow_nan=False)
    returned = Facts.read(json.loads(text))
    assert json.dumps(returned.record()) == text
    check(returned, x)
