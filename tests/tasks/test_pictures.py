"""Figures: what they draw, against the arrays that were given."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from distvae.config import from_dict
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.numerics.noise import order
from distvae.tasks import pictures
from distvae.tasks.pictures import Spectrum
from distvae.tasks.run_pictures import FRAMES, ROWS, as_images, draw_latents, pictures_of, run_title
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny

Values = NDArray[np.floating]
CURVES = {
    **dict.fromkeys(("train_objective", "val_bound", "sigma", "active", "active_p10"), 1.0),
    **dict.fromkeys(("active_p90", "dead", "substitutions", "distinct_states"), 1.0),
    **{"estep_seconds": 3.0, "mstep_seconds": 2.0, "data_seconds": 0.5},
}
TOLD = [
    CURVES | {"epoch": float(i), "train_objective": 2.0 * i, "dead": 9.0 - i} for i in range(1, 9)
]


def test_a_long_title_with_signs_of_formulas_stays_in_its_picture(tmp_path: Path) -> None:
    title = "vae latent 32, from $a_{ and $b: " + "what each latent alone adds " * 5
    changes = np.random.default_rng(0).normal(size=(1, 9, 2))
    figure = pictures.fields(changes, ["a"], title)
    pictures.save(figure, tmp_path / "a.png")
    extent = figure.texts[0].get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1


def mesh(axes: Axes) -> tuple[Values, Values, Values]:
    """The edges in time and in frequency of the one mesh of some axes, and its values."""
    (found,) = axes.collections
    assert isinstance(found, QuadMesh)
    corners, values = np.asarray(found.get_coordinates()), found.get_array()
    assert values is not None
    return corners[0, :, 0], corners[:, 0, 1], np.ma.getdata(values)


def test_a_spectrogram_spans_its_seconds_and_hertz_and_shows_differences_in_decibels() -> None:
    assert pictures.decibel(np.zeros(1)) == -100, "digital silence has a floor"
    power = np.random.default_rng(0).uniform(1, 2, (50, 9))
    figure = pictures.spectrograms(power, power / 10, Spectrum(16000, 160), "a")
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
    rows: list[dict[str, float | str]] = [
        {"x": 0.1 * i, "y": 3 - 0.1 * i, "model": kind} for i, kind in enumerate(kinds)
    ]
    axes = pictures.tradeoff(rows, "x", "y", "model").axes[0]
    drawn = {str(group.get_label()): np.asarray(group.get_offsets()) for group in axes.collections}
    assert set(drawn) == {"vae", "sdm"}
    for name, points in drawn.items():
        expected = np.array([(row["x"], row["y"]) for row in rows if row["model"] == name], float)
        np.testing.assert_allclose(points, expected)
    assert len({tuple(np.asarray(group.get_facecolor())[0]) for group in axes.collections}) == 2


def test_labels_of_crowded_points_never_cover_each_other() -> None:
    rows: list[dict[str, float | str]] = [
        {"x": n % 9, "y": n // 9, "model": "a"} for n in range(99)
    ]
    figure = pictures.tradeoff([*rows, {"x": 900, "y": 900, "model": "a"}], "x", "y", "model")
    labels = [(float(row["x"]), float(row["y"]), f"{n}", True) for n, row in enumerate(rows)]
    pictures.label_points(figure.axes[0], labels)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 1 < len(boxes) < 99
    assert not [one for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]


SIDES = (9, 7)
OF_LATENTS = {"traversal", "interpolation", "conditional", "encodings"}
RUNS = [
    (
        "speech-vae",
        {"model.kind": "vsc", "model.latent": 4, "model.alpha": 0.4123},
        "vsc, 4 latents, alpha 0.412, from speech-vae",
    ),
    (
        "speech-sdm",
        {"model.dictionary": "dct", "model.atoms": 8},
        "sdm, 32 latents, dct, 8 atoms, from speech-sdm",
    ),
]


def shown(figure: Figure) -> Values:
    """Return the values drawn in the single pair of axes of a figure."""
    (axes,) = figure.axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def frame(canvas: Values, row: int, column: int) -> Values:
    """A picture of 6 x 6 pixels in a strip."""
    return canvas[1 + 7 * row : 7 + 7 * row, 1 + 7 * column : 7 + 7 * column]


def test_what_is_drawn_of_images_is_what_is_decoded(image_run: Run) -> None:
    drawn = dict(pictures_of(image_run, "test"))
    assert drawn.keys() == {"images", "codes", "atoms", "learning"} | OF_LATENTS
    canvas = shown(drawn["interpolation"])
    ends = [frame(canvas, row, column) for column in (0, FRAMES + 1) for row in range(ROWS)]
    images = np.stack(ends).reshape(-1, 36)
    restored = as_images(image_run.decode(image_run.encode(images)), image_run)[..., 0]
    for row in range(ROWS):
        np.testing.assert_allclose(frame(canvas, row, 1), restored[row], atol=1e-5)
        np.testing.assert_allclose(frame(canvas, row, FRAMES), restored[ROWS + row], atol=1e-5)
    for name, column in {"conditional": 1, "traversal": 0}.items():
        np.testing.assert_allclose(frame(shown(drawn[name]), 0, column), restored[0], atol=1e-5)
    labels = drawn["interpolation"].axes[0].get_xticklabels()
    assert [label.get_text() for label in labels][:3] == ["image", "0", "1/8"]


def test_each_binary_latent_alone_is_drawn_as_it_is_decoded(bars_run: Run) -> None:
    drawn = dict(pictures_of(bars_run, "test"))
    assert drawn.keys() == {"images", "codes", "atoms", "alone", "learning"}
    pi = bars_run.model.state_dict()["pi"].numpy()
    decoded = bars_run.decode(np.eye(len(pi), dtype=np.float32)[np.argsort(-pi)])
    images, canvas = as_images(decoded, bars_run)[..., 0], shown(drawn["alone"])
    side, across = images.shape[1] + 1, math.ceil(math.sqrt(len(pi)))
    for number, image in enumerate(images):
        down, right = 1 + side * (number // across), 1 + side * (number % across)
        found = canvas[down : down + side - 1, right : right + side - 1]
        np.testing.assert_allclose(found, image, atol=1e-6)


def test_one_image_has_none_to_go_to_and_binary_latents_have_no_values_to_draw_anew(
    images: Path, image_run: Run, tmp_path: Path
) -> None:
    codes = np.zeros((1, image_run.model.code_size), np.float32)
    pixels = np.full((1, 36), 0.5, np.float32)
    alone = dict(draw_latents(image_run, pixels, codes, "one"))
    assert alone.keys() == OF_LATENTS - {"interpolation"}
    tree = {
        "data": {"kind": "idx", "path": str(images)},
        "model": {"kind": "gumbel", "latent": 5, "hidden": [12], "likelihood": "bernoulli"},
        "estep": {"hidden": [12], "input": "raw"},
        "train": {"epochs": 1, "batch": 16, "device": "cpu"},
    }
    config = from_dict(tree)
    list(fit(config, open_dataset(config.data, quiet=True), tmp_path))
    rows = open_dataset(config.data, quiet=True).splits["test"][:12]
    run = Run.open(tmp_path)
    binary = dict(draw_latents(run, rows, run.encode(rows), "bits"))
    assert binary.keys() == OF_LATENTS - {"conditional"}


@pytest.mark.parametrize(("recipe", "settings", "title"), RUNS)
def test_a_title_says_the_model_and_how_it_differs_from_the_recipes(
    tmp_path: Path, recipe: str, settings: dict[str, Any], title: str
) -> None:
    config = load(recipe, {"train.epochs": 1, "train.device": "cpu"} | settings)
    list(fit(config, tiny.dataset(40), tmp_path / "run", recipe=recipe))
    assert run_title(Run.open(tmp_path / "run")) == title


@pytest.mark.slow
def test_originals_are_drawn_in_their_colours(tmp_path: Path) -> None:
    """The images are few, of odd sides, each of one colour and more of it to the right."""
    random, (height, width) = np.random.default_rng(0), SIDES
    ramp = np.linspace(50, 255, width)[:, None] * np.ones((height, 1, 1))
    colours = np.eye(3)[random.integers(0, 3, 40)][:, None, None]
    images = (colours * ramp).astype(np.uint8)
    np.savez(tmp_path / "some.npz", x_train=images[:30], x_test=images[30:])
    net = {"net": "conv", "channels": [4, 6], "kernel": 3, "hidden": [8]}
    tree = {
        "data": {"kind": "images", "path": str(tmp_path / "some.npz")},
        "model": {"kind": "vsc", "latent": 5, "likelihood": "bernoulli"} | net,
        "estep": {"input": "raw"} | net,
        "train": {"epochs": 1, "batch": 8, "device": "cpu"},
    }
    config = from_dict(tree)
    list(fit(config, open_dataset(config.data, quiet=True), tmp_path / "run", recipe="colour"))
    drawn = dict(pictures_of(Run.open(tmp_path / "run"), "test"))
    assert set(drawn) == {"images", "codes", "atoms", "learning"} | OF_LATENTS
    pixels = shown(drawn["images"])
    for place, row in enumerate(order(0, 0, 10)):
        found = pixels[1 : 1 + height, 1 + place * (width + 1) :][:, :width]
        np.testing.assert_allclose(found, images[30 + row] / 255, atol=1e-6)
    (fields,) = drawn["atoms"].axes[0].images
    assert np.asarray(fields.get_array()).shape[-1] == 3
