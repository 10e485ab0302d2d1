"""Figures: what they draw, against the arrays that were given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from distvae.tasks import pictures, spectra
from distvae.tasks.spectra import Spectrum

Values = NDArray[np.floating]
CURVES = {
    **dict.fromkeys(("train_objective", "val_bound", "sigma", "active", "active_p10"), 1.0),
    **dict.fromkeys(("active_p90", "dead", "substitutions", "distinct_states"), 1.0),
    **{"estep_seconds": 3.0, "mstep_seconds": 2.0, "data_seconds": 0.5},
}
TOLD = [
    CURVES | {"epoch": float(i), "train_objective": 2.0 * i, "dead": 9.0 - i} for i in range(1, 9)
]


def all_figures(title: str) -> list[Figure]:
    """A picture of each kind."""
    random = np.random.default_rng(0)
    power, live = random.exponential(size=(20, 9)), np.array([True, False, True])
    return [
        spectra.spectrograms(power, power, Spectrum(8000, 64), title),
        spectra.sampled_frames(power, 8000, title),
        pictures.dictionary(random.normal(size=(4, 3)), title),
        pictures.responses(random.normal(size=(3, 9)), ["a", "b", "c"], live, 8000, title),
        pictures.fields(random.normal(size=(3, 4, 2, 1)), ["a", "b", "c"], title),
        pictures.fields(random.normal(size=(3, 4, 2, 3)), ["a", "b", "c"], title),
        pictures.fields(random.normal(size=(3, 9, 2)), ["a", "b", "c"], title),
        pictures.active_latents(random.uniform(size=(20, 3)), np.array([0.1, 0.9, 0.5]), title),
        pictures.learning(TOLD, "image", title),
        pictures.code_histograms(random.normal(size=(20, 3)), live, title),
        pictures.learning([{"epoch": 1.0, "val_bound": -2.0, "rate": 1e-3}], "frame", title),
        pictures.tradeoff([{"hoyer": 0.1, "stoi": 0.9, "model": "vae"}], "hoyer", "stoi", "model"),
        pictures.pairs(random.uniform(size=(5, 9, 2)), random.uniform(size=(5, 9, 2)), title),
        pictures.grid(random.uniform(size=(5, 3, 3, 3)), title),
        pictures.grid(random.uniform(size=(5, 9, 1)), title),
        pictures.strips(random.uniform(size=(2, 3, 4, 5, 3)), ["a", "b"], ["c", "d", "e"], title),
        pictures.encodings(random.uniform(size=(2, 4, 5, 3)), random.normal(size=(2, 7)), title),
    ]


@pytest.mark.slow
def test_every_picture_can_be_written_and_no_title_leaves_it(tmp_path: Path) -> None:
    figures = all_figures("vae latent 32, from $a_{ and $b: " + "what each latent alone adds " * 5)
    for i, figure in enumerate(figures):
        pictures.save(figure, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")
        if figure.get_suptitle():
            extent = figure.texts[0].get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 <= figure.bbox.x1
    untitled = [figure for figure in figures if not figure.get_suptitle()]
    assert len(untitled) == 1, "the trade-off has no title"
    assert len(list(tmp_path.iterdir())) == len(figures)


def mesh(axes: Axes) -> tuple[Values, Values, Values]:
    """The edges in time and in frequency of the one mesh of some axes, and its values."""
    (found,) = axes.collections
    assert isinstance(found, QuadMesh)
    corners, values = np.asarray(found.get_coordinates()), found.get_array()
    assert values is not None
    return corners[0, :, 0], corners[:, 0, 1], np.ma.getdata(values)


def test_a_spectrogram_spans_its_seconds_and_hertz_and_shows_differences_in_decibels() -> None:
    assert spectra.decibel(np.zeros(1)) == -100, "digital silence has a floor"
    power = np.random.default_rng(0).uniform(1, 2, (50, 9))
    figure = spectra.spectrograms(power, power / 10, Spectrum(16000, 160), "a")
    original, _, difference = figure.axes[:3]
    seconds, hertz, values = mesh(original)
    np.testing.assert_allclose(values, 10 * np.log10(power).T)
    np.testing.assert_allclose((seconds[1:] + seconds[:-1]) / 2, np.arange(50) * 0.01, atol=1e-9)
    np.testing.assert_allclose((hertz[1:] + hertz[:-1]) / 2, np.arange(9) * 1000.0, atol=1e-9)
    np.testing.assert_allclose(mesh(difference)[2], -10)


def test_each_picture_stands_above_its_reconstruction() -> None:
    images = np.random.default_rng(0).uniform(size=(15, 2, 3, 1))  # in rows of twelve
    (drawn,) = pictures.pairs(images, -images, "a").axes[0].images
    shown = np.asarray(drawn.get_array())
    for i, image in enumerate(images[..., 0]):
        top, left = 1 + (i // 12) * 6, 1 + (i % 12) * 4
        np.testing.assert_allclose(shown[top : top + 2, left : left + 3], image, rtol=1e-6)
        np.testing.assert_allclose(shown[top + 3 : top + 5, left : left + 3], -image, rtol=1e-6)


def heights(axes: Axes) -> list[float]:
    """The heights of the bars of some axes, from left to right."""
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_active_latents_are_counted_row_by_row_and_ranked_by_their_prior() -> None:
    codes = (np.random.default_rng(0).random((500, 3)) < [0.1, 0.8, 0.4]).astype(float)
    left, right = pictures.active_latents(codes, np.array([0.1, 0.8, 0.4]), "a").axes
    shares = [np.mean(codes.sum(1) == count) for count in range(4)]
    np.testing.assert_allclose(heights(left), shares)
    np.testing.assert_allclose(heights(right), [0.8, 0.4, 0.1])
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), codes.mean(0)[[1, 2, 0]])


def test_a_training_has_a_panel_for_each_recorded_quantity_and_leaves_out_its_first_plunge() -> (
    None
):
    panels = {axes.get_title(): axes for axes in pictures.learning(TOLD, "image", "a").axes}
    assert list(panels) == [name for name in pictures.PANELS if name != "learning rate"]
    np.testing.assert_array_equal(panels["dead latents"].lines[0].get_ydata(), range(8, 0, -1))
    objective = panels["bound"].lines[0].get_xydata()
    np.testing.assert_array_equal(objective, [(i, 2 * i) for i in range(1, 9)])
    assert panels["bound"].get_ylabel() == "nats per image"
    seconds = [np.asarray(line.get_ydata())[0] for line in panels["time of an epoch"].lines]
    assert seconds == [3.0, 2.0, 0.5]
    epochs = [{"epoch": float(i), "val_bound": -1e6 if i == 0 else 100.0 + i} for i in range(30)]
    low, high = pictures.learning(epochs, "frame", "a").axes[0].get_ylim()
    assert 0 < low < 110
    assert high > 129


def test_a_tradeoff_shows_every_row_in_the_colour_of_its_group() -> None:
    kinds = ["sdm", "vae"] * 3
    rows = [{"x": 0.1 * i, "y": 3 - 0.1 * i, "model": kind} for i, kind in enumerate(kinds)]
    axes = pictures.tradeoff(rows, "x", "y", "model").axes[0]
    drawn = {str(group.get_label()): np.asarray(group.get_offsets()) for group in axes.collections}
    assert set(drawn) == {"vae", "sdm"}
    for name, points in drawn.items():
        expected = np.array([(row["x"], row["y"]) for row in rows if row["model"] == name], float)
        np.testing.assert_allclose(points, expected)
    assert len({tuple(np.asarray(group.get_facecolor())[0]) for group in axes.collections}) == 2
