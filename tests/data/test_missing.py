"""Which values of a picture or sound are missing: by a mask, by a value that marks them, or at
random.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from distvae.config import PatchData
from distvae.data.signals import Signal
from distvae.data.windows.family import PatchFamily
from distvae.data.windows.missing import drop_at_random, marked_by, masked_by

WAYS: tuple[Literal["pixels", "values"], ...] = ("pixels", "values")


def dropping(share: float, seed: int, what: Literal["pixels", "values"], gap: int = 1) -> PatchData:
    return PatchData(drop=share, noise_seed=seed, dropped=what, gap=gap)


def picture(channels: int) -> Signal:
    return Signal(np.full((50, 60, channels), 100.0))


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_pixels_are_dropped_with_all_their_colours_and_values_by_themselves(
    share: float, seed: int
) -> None:
    pixels, values = (drop_at_random(dropping(share, seed, what))(picture(3)) for what in WAYS)
    assert pixels.shape == values.shape == (50, 60, 3)
    assert (pixels.all(-1) == pixels.any(-1)).all()
    # Five deviations of 9000 draws are 0.026 at most.
    assert values.mean() == pytest.approx(share, abs=0.03)
    assert pixels.mean() == pytest.approx(share, abs=0.05)
    assert values.all(-1).mean() == pytest.approx(share**3, abs=0.05)


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_samples_of_a_sound_are_dropped_with_all_channels_or_by_themselves(
    share: float, seed: int
) -> None:
    sound = Signal(np.full((3000, 2), 0.1), rate=8000)
    samples, values = (drop_at_random(dropping(share, seed, what))(sound) for what in WAYS)
    assert samples.shape == values.shape == (3000, 2)
    assert (samples.all(-1) == samples.any(-1)).all()
    assert samples.mean() == pytest.approx(share, abs=0.05)
    assert values.all(-1).mean() == pytest.approx(share**2, abs=0.05)


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_of_grey_pixels_both_drop_the_same(share: float, seed: int) -> None:
    one, other = (drop_at_random(dropping(share, seed, what))(picture(1)) for what in WAYS)
    assert (one == other).all()


@pytest.mark.parametrize("what", WAYS)
def test_what_a_model_sees_lacks_what_the_configuration_drops(
    what: Literal["pixels", "values"],
) -> None:
    seen = PatchFamily(PatchData(drop=0.4, dropped=what, noise_seed=7)).corrupt(picture(3))
    assert (np.isnan(seen.values) == drop_at_random(dropping(0.4, 7, what))(picture(3))).all()


@given(st.floats(0.05, 0.6), st.integers(2, 6), st.booleans())
def test_gaps_have_their_least_size_and_make_up_the_share(
    share: float, gap: int, sound: bool
) -> None:
    signal = Signal(np.zeros((4000, 1)), rate=8000) if sound else Signal(np.zeros((80, 80, 1)))
    missing = drop_at_random(dropping(share, 3, "pixels", gap))(signal)[..., 0]
    # an opening (erosion, then dilation) keeps exactly what squares of this size make up
    square = np.ones((gap,) * missing.ndim)
    at_the_far_edges = tuple((0, gap) for _ in range(missing.ndim))  # where gaps are cut off
    padded = np.pad(missing, at_the_far_edges, mode="edge")
    opened = ndimage.binary_opening(padded, square)[tuple(map(slice, missing.shape))]
    np.testing.assert_array_equal(opened, missing)
    assert missing.mean() == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_value_marks_the_pixels_of_which_all_channels_have_it_in_the_file(bits: int) -> None:
    in_file = np.array([[[0, 0, 0], [1, 1, 1], [1, 1, 2], [2, 2, 2]]])
    signal = Signal(in_file * 255 / (2**bits - 1), bits)
    assert (
        marked_by(1)(signal).tolist()
        == (in_file == 1).all(-1, keepdims=True).repeat(3, -1).tolist()
    )


def test_a_value_marks_the_samples_of_which_all_channels_have_exactly_that_one() -> None:
    sound = Signal(np.array([[0.0, 0.0], [0.0, 1e-4], [-1e-4, 1e-4], [0.5, 0.5]]), rate=8000)
    assert marked_by(0)(sound).all(-1).tolist() == [True, False, False, False]
    assert marked_by(0.5)(sound).all(-1).tolist() == [False, False, False, True]


def test_what_is_transparent_in_a_mask_is_not_missing(tmp_path: Path) -> None:
    pixels = np.zeros((50, 60, 4), np.uint8)
    pixels[:, 20:, :3], pixels[:, 40:, 3] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    gone = masked_by(tmp_path / "mask.png")(picture(3))
    assert gone[:, 40:].all()
    assert not gone[:, :40].any()
