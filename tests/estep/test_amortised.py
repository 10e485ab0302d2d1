"""The inputs of an encoder, standardised by its training rows."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distvae.config import from_dict
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.interface import Batch
from distvae.numerics.arrays import Facts
from distvae.numerics.rows import Lanes

BLOCK, BLOCKS = 1000, 300


def encoder(inputs: str, width: int) -> Amortised:
    """An encoder that has seen no rows."""
    _, estep = assemble(from_dict({"estep": {"input": inputs}}), width)
    assert isinstance(estep, Amortised)
    return estep


def prepared(blocks: list[torch.Tensor], inputs: str = "log_standard") -> Amortised:
    """An encoder that is ready to train on some rows."""
    estep = encoder(inputs, blocks[0].shape[1])
    estep.prepare(blocks, Lanes(sum(map(len, blocks)), 1).held(), 0)
    return estep


def test_a_value_that_never_varies_keeps_its_units_however_many_rows_there_are() -> None:
    powers = torch.logspace(-12, 3, 60)
    estep = prepared([powers.expand(BLOCK, -1)] * BLOCKS)
    torch.testing.assert_close(estep.shift, (powers + 1e-10).log())
    assert (estep.scale == 1).all()


def with_gaps() -> NDArray[np.float32]:
    """Rows with missing values; of the last column all are."""
    x = np.random.default_rng(0).exponential(size=(700, 5)).astype(np.float32)
    x[::3, 1], x[:, 4] = np.nan, np.nan
    return x


@pytest.mark.parametrize("inputs", ["standard", "log_standard"])
def test_shift_and_scale_are_mean_and_deviation_of_what_was_observed(inputs: str) -> None:
    x = with_gaps()
    estep = prepared(list(torch.from_numpy(x).split(64)), inputs)
    u = x[:, :4].astype(np.float64)
    if inputs == "log_standard":
        u = np.log(x[:, :4] + np.float32(1e-10), dtype=np.float64)
    assert estep.shift[:4].numpy() == pytest.approx(np.nanmean(u, 0), rel=1e-5)
    assert estep.scale[:4].numpy() == pytest.approx(np.nanstd(u, 0), rel=1e-5)
    assert [float(estep.shift[4]), float(estep.scale[4])] == [0, 1]
    told = encoder(inputs, x.shape[1])
    assert told.prepare_from(Facts.of(x))
    torch.testing.assert_close(told.shift, estep.shift)
    torch.testing.assert_close(told.scale, estep.scale)
    batch = Batch.of(torch.from_numpy(x), torch.arange(len(x)))
    seen = estep.transform(batch)
    assert (seen[np.isnan(x)] == 0).all(), "a missing value looks like the mean"
    torch.testing.assert_close(seen.sum(0), torch.zeros(5), atol=1e-2, rtol=0)


def test_standardised_inputs_do_not_depend_on_the_units_of_the_data() -> None:
    x = torch.from_numpy(np.nan_to_num(with_gaps()))
    batch = Batch.of(x, torch.arange(len(x)))
    seen = prepared([x], "standard").transform(batch)
    for slope, offset in [(1.8, 32.0), (1e-9, 0.0), (-1e9, 0.0)]:
        y = slope * x + offset
        found = prepared([y], "standard").transform(batch._replace(x=y))
        torch.testing.assert_close(math.copysign(1, slope) * found, seen, rtol=1e-4, atol=1e-4)


def test_facts_about_logarithms_above_another_floor_do_not_suffice() -> None:
    section = {"input": "log_standard", "floor": 1e-3}
    _, estep = assemble(from_dict({"estep": section}), 5)
    assert isinstance(estep, Amortised)
    assert not estep.prepare_from(Facts.of(with_gaps()))
