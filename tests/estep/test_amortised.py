"""What an encoder sees: values that are standardised by the rows it is trained on."""

import numpy as np
import pytest
import torch

from distvae.config import from_dict
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.numerics.lanes import Lanes

BLOCK, BLOCKS = 1000, 1500


def prepared(blocks: list[torch.Tensor]) -> Amortised:
    """An encoder that is ready to train on some rows."""
    width = blocks[0].shape[1]
    _, estep = assemble(from_dict({}), width)
    assert isinstance(estep, Amortised)
    estep.prepare(blocks, Lanes(sum(map(len, blocks)), 1).held(), 0)
    return estep


def test_a_value_that_never_varies_keeps_its_units_however_many_rows_there_are() -> None:
    powers = torch.logspace(-12, 3, 60)
    estep = prepared([powers.expand(BLOCK, -1)] * BLOCKS)
    torch.testing.assert_close(estep.shift, (powers + 1e-10).log())
    assert (estep.scale == 1).all()


def test_shift_and_scale_are_mean_and_deviation_of_what_was_observed() -> None:
    x = np.random.default_rng(0).exponential(size=(700, 5)).astype(np.float32)
    x[::3, 1], x[:, 4] = np.nan, np.nan
    estep = prepared(list(torch.from_numpy(x).split(64)))
    u = np.log(x[:, :4] + np.float32(1e-10), dtype=np.float64)
    assert estep.shift[:4].numpy() == pytest.approx(np.nanmean(u, 0), rel=1e-5)
    assert estep.scale[:4].numpy() == pytest.approx(np.nanstd(u, 0), rel=1e-5)
    assert [float(estep.shift[4]), float(estep.scale[4])] == [0, 1]
