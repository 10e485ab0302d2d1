"""Which values of a picture are dropped at random."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import PatchData
from distvae.data.signals import Signal
from distvae.data.windows.missing import drop_at_random
from distvae.data.windows.source import corrupt

WAYS: tuple[Literal["pixels", "values"], ...] = ("pixels", "values")


def picture(channels: int) -> Signal:
    return Signal(np.full((50, 60, channels), 100.0))


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_pixels_are_dropped_with_all_their_colours_and_values_by_themselves(
    share: float, seed: int
) -> None:
    pixels, values = (drop_at_random(share, seed, what)(picture(3)) for what in WAYS)
    assert pixels.shape == values.shape == (50, 60, 3)
    assert (pixels.all(-1) == pixels.any(-1)).all()
    # Five deviations of 9000 draws are 0.026 at most.
    assert values.mean() == pytest.approx(share, abs=0.03)
    assert pixels.mean() == pytest.approx(share, abs=0.05)
    assert values.all(-1).mean() == pytest.approx(share**3, abs=0.05)


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_of_grey_pixels_both_drop_the_same(share: float, seed: int) -> None:
    one, other = (drop_at_random(share, seed, what)(picture(1)) for what in WAYS)
    assert (one == other).all()


@pytest.mark.parametrize("what", WAYS)
def test_what_a_model_sees_lacks_what_the_configuration_drops(
    what: Literal["pixels", "values"],
) -> None:
    seen = corrupt(picture(3), PatchData(drop=0.4, dropped=what, noise_seed=7))
    assert (np.isnan(seen.values) == drop_at_random(0.4, 7, what)(picture(3))).all()
