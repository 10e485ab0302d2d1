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
from distvae.tasks import run_pictures
from distvae.tasks.run_pictures import as_images, pictures_of, run_title
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny

Values = NDArray[np.floating]
RUNS = [
    ("speech-vae", {}, "vae latent 32, from speech-vae"),
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
SIDES = (9, 7)


def run_of(images: Path, folder: Path, **model: Any) -> Run:
    tree = {
        "data": {"kind": "idx", "path": str(images)},
        "model": {"latent": 5, "hidden": [12], "likelihood": "bernoulli", **model},
        "estep": {"hidden": [12], "input": "raw"},
        "train": {"epochs": 1, "batch": 16, "device": "cpu"},
    }
    config = from_dict(tree)
    list(fit(config, open_dataset(config.data, quiet=True), folder))
    return Run.open(folder)


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
    canvas = shown(drawn["interpolation"])
    originals = [
        frame(canvas, row, column)
        for column in (0, run_pictures.FRAMES + 1)
        for row in range(run_pictures.ROWS)
    ]
    images = np.stack(originals).reshape(-1, 36)
    restored = as_images(image_run.decode(image_run.encode(images)), image_run)[..., 0]
    for row in range(run_pictures.ROWS):
        np.testing.assert_allclose(frame(canvas, row, 1), restored[row], atol=1e-5)
        np.testing.assert_allclose(
            frame(canvas, row, run_pictures.FRAMES), restored[run_pictures.ROWS + row], atol=1e-5
        )
    for name, column in {"conditional": 1, "traversal": 0}.items():
        np.testing.assert_allclose(frame(shown(drawn[name]), 0, column), restored[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"kind": "sdm", "dictionary": "dct", "atoms": 7}])
def test_models_with_an_encoder_have_all_four_pictures(
    images: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    drawn = dict(pictures_of(run_of(images, tmp_path / "run", **model), "test"))
    assert {"traversal", "interpolation", "conditional", "encodings"} <= drawn.keys()
    headings = {
        name: [label.get_text() for label in drawn[name].axes[0].get_xticklabels()]
        for name in drawn
    }
    assert headings["traversal"][:2] == ["coded", "least"]
    assert headings["interpolation"][:3] == ["image", "0", "1/8"]
    assert headings["conditional"][-1] == "draw 8"


def test_one_image_alone_has_none_to_go_to(image_run: Run) -> None:
    codes = np.zeros((1, image_run.model.code_size), np.float32)
    drawn = dict(
        run_pictures.draw_latents(image_run, np.full((1, 36), 0.5, np.float32), codes, "one")
    )
    assert "traversal" in drawn
    assert "interpolation" not in drawn


def test_binary_latents_have_no_values_to_draw_anew(images: Path, tmp_path: Path) -> None:
    drawn = dict(pictures_of(run_of(images, tmp_path / "run", kind="gumbel"), "test"))
    assert "traversal" in drawn
    assert "conditional" not in drawn


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "settings", "title"), RUNS)
def test_a_title_says_the_model_and_how_it_differs_from_the_recipes(
    tmp_path: Path, recipe: str, settings: dict[str, Any], title: str
) -> None:
    config = load(recipe, {"train.epochs": 1, "train.device": "cpu"} | settings)
    list(fit(config, tiny.dataset(40), tmp_path / "run", recipe=recipe))
    assert run_title(Run.open(tmp_path / "run")) == title


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on few images of odd sides, each of one colour and more of it to the right."""
    folder, random = tmp_path_factory.mktemp("colour"), np.random.default_rng(0)
    kinds, ramp = random.integers(0, 3, 40), np.linspace(50, 255, SIDES[1])
    images = (np.eye(3)[kinds][:, None, None] * ramp[:, None] * np.ones((SIDES[0], 1, 1))).astype(
        np.uint8
    )
    train, test = slice(None, 30), slice(30, None)
    file = folder / "some.npz"
    np.savez(
        file, x_train=images[train], x_test=images[test], y_train=kinds[train], y_test=kinds[test]
    )
    net = {"net": "conv", "channels": [4, 6], "kernel": 3, "hidden": [8]}
    tree = {
        "data": {"kind": "images", "path": str(file)},
        "model": {"kind": "vsc", "latent": 5, "likelihood": "bernoulli"} | net,
        "estep": {"input": "raw"} | net,
        "train": {"epochs": 1, "batch": 8, "device": "cpu"},
    }
    config = from_dict(tree)
    for _ in fit(config, open_dataset(config.data), folder / "run", recipe="colour"):
        pass
    return Run.open(folder / "run")


@pytest.mark.slow
def test_originals_are_drawn_in_their_colours(colour_run: Run) -> None:
    with np.load(colour_run.config.data.path) as archive:
        images = archive["x_test"] / 255
    drawn = dict(pictures_of(colour_run, "test"))
    draw_latents = {"traversal", "interpolation", "conditional", "encodings"}
    assert set(drawn) == {"images", "codes", "atoms", "learning"} | draw_latents
    (canvas,) = drawn["images"].axes[0].images
    pixels = np.asarray(canvas.get_array())
    height, width = SIDES
    for place, row in enumerate(order(0, 0, len(images))):
        left = 1 + place * (width + 1)
        np.testing.assert_allclose(
            pixels[1 : 1 + height, left : left + width], images[row], atol=1e-6
        )
    (fields,) = drawn["atoms"].axes[0].images
    assert np.asarray(fields.get_array()).shape[-1] == 3
