"""Pictures of decoded codes near the codes of images: the varied values and the constant values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distvae.config import from_dict
from distvae.data import open_dataset
from distvae.tasks import latents
from distvae.tasks.images import as_images
from distvae.tasks.run_pictures import pictures_of
from distvae.train.run import Run
from distvae.train.session import fit

Values = NDArray[np.floating]
CODES = arrays.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32))


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


@given(CODES, CODES)
def test_interpolations_begin_and_end_at_the_codes_and_take_equal_steps(
    first: Values, last: Values
) -> None:
    codes = latents.interpolated(first, last)
    np.testing.assert_array_equal(codes[:, 0], first)
    np.testing.assert_array_equal(codes[:, -1], last)
    steps = np.diff(codes, axis=1)
    np.testing.assert_allclose(
        steps, steps.mean(1, keepdims=True) + np.zeros_like(steps), atol=1e-3
    )


@given(CODES, st.permutations(range(5)), st.integers(1, 5))
def test_a_traversal_changes_one_latent_and_no_other(
    values: Values, order: list[int], count: int
) -> None:
    (code, low, high), chosen = values, np.array(order[:count])
    codes = latents.traversed(code, chosen, low, high)
    for way, latent in zip(codes, chosen, strict=True):
        others = np.arange(5) != latent
        np.testing.assert_array_equal(way[:, others], np.tile(code[others], (len(way), 1)))
        assert (way[0, latent], way[-1, latent]) == (low[latent], high[latent])
        assert np.all(np.diff(way[:, latent]) * np.sign(high[latent] - low[latent]) >= 0)


@given(CODES, st.integers(0, 31))
def test_latents_that_live_come_first_and_of_each_kind_the_strongest(
    values: Values, bits: int
) -> None:
    code, live = values[0], np.array([bool(bits >> h & 1) for h in range(5)])
    order = latents.strongest(code, live)
    assert sorted(order) == list(range(5))
    ranking = [(not live[h], -abs(code[h])) for h in order]
    assert ranking == sorted(ranking)


def test_what_is_drawn_of_images_is_what_is_decoded(image_run: Run) -> None:
    drawn = dict(pictures_of(image_run, "test"))
    canvas = shown(drawn["interpolation"]())
    originals = [
        frame(canvas, row, column)
        for column in (0, latents.FRAMES + 1)
        for row in range(latents.ROWS)
    ]
    images = np.stack(originals).reshape(-1, 36)
    restored = as_images(image_run.decode(image_run.encode(images)), image_run)[..., 0]
    for row in range(latents.ROWS):
        np.testing.assert_allclose(frame(canvas, row, 1), restored[row], atol=1e-5)
        np.testing.assert_allclose(
            frame(canvas, row, latents.FRAMES), restored[latents.ROWS + row], atol=1e-5
        )
    for name, column in {"conditional": 1, "traversal": 0}.items():
        np.testing.assert_allclose(frame(shown(drawn[name]()), 0, column), restored[0], atol=1e-5)


@pytest.mark.parametrize(
    "model", [{"kind": "vae"}, {"kind": "vsc"}, {"kind": "sdm", "dictionary": "dct", "atoms": 7}]
)
def test_models_with_an_encoder_have_all_four_pictures(
    images: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    drawn = dict(pictures_of(run_of(images, tmp_path / "run", **model), "test"))
    assert {"traversal", "interpolation", "conditional", "encodings"} <= drawn.keys()
    headings = {
        name: [label.get_text() for label in drawn[name]().axes[0].get_xticklabels()]
        for name in drawn
    }
    assert headings["traversal"][:2] == ["coded", "least"]
    assert headings["interpolation"][:3] == ["image", "0", "1/8"]
    assert headings["conditional"][-1] == "draw 8"


def test_one_image_alone_has_none_to_go_to(image_run: Run) -> None:
    codes = np.zeros((1, image_run.model.code_size), np.float32)
    drawn = dict(latents.draw_latents(image_run, np.full((1, 36), 0.5, np.float32), codes, "one"))
    assert "traversal" in drawn
    assert "interpolation" not in drawn


def test_binary_latents_have_no_values_to_draw_anew(images: Path, tmp_path: Path) -> None:
    drawn = dict(pictures_of(run_of(images, tmp_path / "run", kind="gumbel"), "test"))
    assert "traversal" in drawn
    assert "conditional" not in drawn
