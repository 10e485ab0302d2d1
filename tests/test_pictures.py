from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distvae import pictures
from distvae.refusal import Refusal

Values = NDArray[np.floating]


def canvas(axes: Axes) -> Values:
    """What the one image of some axes shows."""
    (image,) = axes.images
    shown = image.get_array()
    assert shown is not None
    return np.ma.getdata(shown)


def test_every_picture_can_be_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    power, live = random.exponential(size=(20, 9)), np.array([True, False, True])
    figures = [
        pictures.spectrograms(power, power, 8000, 64, "a"),
        pictures.sampled_frames(power, 8000, "a"),
        pictures.dictionary(random.normal(size=(4, 3)), "a"),
        pictures.responses(random.normal(size=(3, 9)), ["a", "b", "c"], live, 8000, "a"),
        pictures.image_responses(random.normal(size=(3, 9)), "a"),
        pictures.code_histograms(random.normal(size=(20, 3)), live, "a"),
        pictures.learning_curves([{"epoch": 1.0, "val_bound": -2.0, "rate": 1e-3}], "frame", "a"),
        pictures.tradeoff([{"hoyer": 0.1, "stoi": 0.9, "model": "vae"}], "hoyer", "stoi", "model"),
        pictures.image_pairs(random.uniform(size=(5, 9)), random.uniform(size=(5, 9)), "a"),
        pictures.image_grid(random.uniform(size=(5, 9)), "a"),
    ]
    for i, figure in enumerate(figures):
        pictures.save(figure, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == len(figures)


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No such file"):
        pictures.save(Figure(), tmp_path / "absent" / "a.png")


@given(st.floats(-90, 90))
def test_decibels_are_ten_per_factor_of_ten(decibels: float) -> None:
    assert pictures.decibel(np.array([10 ** (decibels / 10)])) == pytest.approx(decibels)


def test_digital_silence_has_a_floor() -> None:
    assert pictures.decibel(np.zeros(1)) == -100


def test_a_spectrogram_spans_its_seconds_and_kilohertz_and_shows_differences_in_decibels() -> None:
    power = np.random.default_rng(0).uniform(1, 2, (50, 9))
    figure = pictures.spectrograms(power, power / 10, 16000, 160, "a")
    original, _, difference = figure.axes[:3]
    assert tuple(original.images[0].get_extent()) == (0, 0.5, 0, 8)
    np.testing.assert_allclose(canvas(difference), -10)
    np.testing.assert_allclose(canvas(original), 10 * np.log10(power).T)


def test_each_image_stands_above_its_reconstruction() -> None:
    images = np.random.default_rng(0).uniform(size=(15, 6))  # two by three pixels, in rows of twelve
    shown = canvas(pictures.image_pairs(images, -images, "a").axes[0])
    for i, image in enumerate(images):
        top, left = 1 + (i // 12) * 6, 1 + (i % 12) * 4
        np.testing.assert_allclose(shown[top : top + 2, left : left + 3], image.reshape(2, 3), rtol=1e-6)
        np.testing.assert_allclose(shown[top + 3 : top + 5, left : left + 3], -image.reshape(2, 3), rtol=1e-6)


def test_histograms_rank_the_code_by_strength_and_show_shares() -> None:
    codes = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [0.1, 1.0, 0.5]
    bars, shares = pictures.code_histograms(codes, np.array([True, True, False]), "a").axes[:2]
    strength = np.array([1.0, 0.5, 0.1]) / np.sqrt(3)
    np.testing.assert_allclose(
        [bar.get_path().get_extents(bar.get_patch_transform()).width for bar in bars.patches], strength, rtol=0.05
    )
    shown = 10 ** canvas(shares)
    np.testing.assert_allclose(shown[:, 40].ravel(), [1 / 81, 2 / 81, 10 / 81], rtol=0.3)
    np.testing.assert_allclose(shown.sum(1), 1, atol=0.02)


def test_learning_curves_draw_every_epoch() -> None:
    epochs = [
        {"epoch": float(i), "train_objective": 2.0 * i, "val_objective": 1.5 * i, "rate": 0.1} for i in range(1, 9)
    ]
    axes = pictures.learning_curves(epochs, "frame", "a").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(i, 2 * i) for i in range(1, 9)])
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [(i, 1.5 * i) for i in range(1, 9)])
    assert axes.get_ylabel() == "nats per frame"


def test_the_first_plunge_is_left_below_the_axis() -> None:
    epochs = [{"epoch": float(i), "val_bound": -1e6 if i == 0 else 100.0 + i} for i in range(30)]
    low, high = pictures.learning_curves(epochs, "frame", "a").axes[0].get_ylim()
    assert 0 < low < 110
    assert high > 129


def test_a_tradeoff_shows_every_row_in_the_colour_of_its_group() -> None:
    rows = [{"hoyer": 0.1 * i, "pesq_wb": 3 - 0.1 * i, "model": "vae" if i % 2 else "sdm"} for i in range(6)]
    axes = pictures.tradeoff(rows, "hoyer", "pesq_wb", "model").axes[0]
    drawn = {str(group.get_label()): np.asarray(group.get_offsets()) for group in axes.collections}
    for name, points in drawn.items():
        expected = np.array([(row["hoyer"], row["pesq_wb"]) for row in rows if row["model"] == name], float)
        np.testing.assert_allclose(points, expected)
    assert set(drawn) == {"vae", "sdm"}
    assert len({tuple(np.asarray(group.get_facecolor())[0]) for group in axes.collections}) == 2
