"""Colour images through a convolutional net: drawn images equal the files, and codes keep their
classes.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distvae.config import from_dict
from distvae.data import labels_of, open_dataset
from distvae.numerics.noise import order
from distvae.tasks.codes import encode, sample
from distvae.tasks.run_pictures import pictures_of
from distvae.train.run import Run
from distvae.train.session import fit

SIDES = (9, 7)


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


def test_originals_are_drawn_in_their_colours(colour_run: Run) -> None:
    with np.load(colour_run.config.data.path) as archive:
        images = archive["x_test"] / 255
    drawn = dict(pictures_of(colour_run, "test"))
    draw_latents = {"traversal", "interpolation", "conditional", "encodings"}
    assert set(drawn) == {"images", "codes", "atoms", "learning"} | draw_latents
    (canvas,) = drawn["images"]().axes[0].images
    pixels = np.asarray(canvas.get_array())
    height, width = SIDES
    for place, row in enumerate(order(0, 0, len(images))):
        left = 1 + place * (width + 1)
        np.testing.assert_allclose(
            pixels[1 : 1 + height, left : left + width], images[row], atol=1e-6
        )
    (fields,) = drawn["atoms"]().axes[0].images
    assert np.asarray(fields.get_array()).shape[-1] == 3


def test_codes_keep_the_classes_of_their_images(colour_run: Run, tmp_path: Path) -> None:
    assert encode(colour_run, colour_run.config.data, tmp_path / "codes.parquet") == 40
    table = pq.read_table(tmp_path / "codes.parquet")
    labels = labels_of(colour_run.config.data)
    assert labels is not None
    assert table["split"].to_pylist() == ["train"] * 30 + ["test"] * 10
    assert table["label"].to_pylist() == [*labels["train"], *labels["test"]]


def test_draws_from_the_prior_are_images_in_colour(colour_run: Run, tmp_path: Path) -> None:
    sample(colour_run, tmp_path / "draws.png", 4)
    assert np.load(tmp_path / "draws.npy").shape == (4, 3 * SIDES[0] * SIDES[1])
    assert (tmp_path / "draws.png").is_file()
