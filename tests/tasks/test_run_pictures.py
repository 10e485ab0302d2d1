"""Pictures of runs: what is varied, what is constant, titles and colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distvae.config import from_dict
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.numerics.noise import order
from distvae.tasks.run_pictures import FRAMES, ROWS, as_images, draw_latents, pictures_of, run_title
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny

Values = NDArray[np.floating]
SIDES = (9, 7)
OF_LATENTS = {"traversal", "interpolation", "conditional", "encodings"}
RUNS = [
    (
        "speech-vae",
        {"model.kind": "vsc", "model.latent": 4, "model.alpha": 0.4123},
        "vsc latent 4 alpha 0.412, from speech-vae",
    ),
    (
        "speech-sdm",
        {"model.dictionary": "dct", "model.atoms": 8},
        "sdm latent 32 dct atoms 8, from speech-sdm",
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
    small = {"train.epochs": 1, "train.device": "cpu", "model.hidden": [8], "estep.hidden": [8]}
    config = load(recipe, small | settings)
    list(fit(config, tiny.dataset(40), tmp_path / "run", recipe=recipe))
    assert run_title(Run.open(tmp_path / "run")) == title.replace(", from", " hidden [8], from")


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
