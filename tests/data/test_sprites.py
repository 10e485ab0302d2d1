"""Sprites against geometry: area, middle and direction of what is drawn are those of the
formulas.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import from_dict
from distvae.data import factors_of, labels_of, open_dataset
from distvae.data.generated import LEVELS, RADIUS, SHAPES, TURN, draw_sprites

SIZE = 48
COUNTS = list(LEVELS.values())
AREA = {"ellipse": math.pi / 2, "square": 2.0, "triangle": 3 * math.sqrt(3) / 4}
"""Of each shape in a circle of radius one."""
SMALL = {"rows": 200, "size": 16}
SPRITES = st.tuples(*(st.integers(0, count - 1) for count in COUNTS)).map(np.array)


def opened(**fields: Any) -> Any:
    return from_dict({"data": {"kind": "sprites"} | SMALL | fields}).data


def moments(picture: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Area, middle (x, y) and covariance of what is lit."""
    y, x = np.mgrid[: len(picture), : len(picture)] + 0.5
    weight = picture / picture.sum()
    middle = np.array([(weight * x).sum(), (weight * y).sum()])
    apart = np.stack([x - middle[0], y - middle[1]])
    return float(picture.sum()), middle, np.einsum("hw,ahw,bhw->ab", weight, apart, apart)


@settings(max_examples=25)
@given(SPRITES)
def test_what_is_drawn_has_the_area_and_the_middle_that_the_factors_say(sprite: np.ndarray) -> None:
    picture = draw_sprites(sprite[None], SIZE)[0]
    shape, scale, _, x, y = sprite
    radius = SIZE * RADIUS * (0.5 + 0.5 * scale / (COUNTS[1] - 1))
    area, middle, _ = moments(picture)
    assert area == pytest.approx(AREA[list(SHAPES)[shape]] * radius**2, rel=0.06)
    margin = SIZE * RADIUS + 1
    wanted = margin + np.array([x, y]) / (np.array(COUNTS[3:]) - 1) * (SIZE - 2 * margin)
    np.testing.assert_allclose(middle, wanted, atol=0.15)
    assert not picture[[0, -1]].any()
    assert not picture[:, [0, -1]].any()


@pytest.mark.parametrize("size", [18, SIZE])
@pytest.mark.parametrize("shape", range(LEVELS["shape"]))
def test_no_shape_has_a_hole(shape: int, size: int) -> None:
    """Wherever it lies, even with its middle on that of a pixel, a row never grows darker before it
    grows lighter.
    """
    places = np.stack(np.meshgrid(shape, [0, 5], range(10), [0, 7, 15], [0, 15]), -1).reshape(-1, 5)
    pictures = draw_sprites(places, size)
    between = np.minimum(
        np.maximum.accumulate(pictures, -1),
        np.maximum.accumulate(pictures[..., ::-1], -1)[..., ::-1],
    )
    np.testing.assert_allclose(pictures, between, atol=1e-6)


def test_an_ellipse_points_where_its_rotation_says() -> None:
    for rotation in range(LEVELS["rotation"]):
        _, _, spread = moments(draw_sprites(np.array([[0, 5, rotation, 7, 7]]), SIZE)[0])
        along = np.linalg.eigh(spread)[1][:, -1]
        angle = rotation / LEVELS["rotation"] * TURN
        assert abs(along @ [math.cos(angle), math.sin(angle)]) == pytest.approx(1, abs=1e-3)


def test_no_picture_is_drawn_twice_and_splits_are_apart() -> None:
    rows = 46080
    levels = factors_of(opened(rows=rows)).levels  # type: ignore[union-attr]
    assert sum(map(len, levels.values())) == rows
    assert len({tuple(row) for part in levels.values() for row in part.tolist()}) == rows
    assert all(len(part) == rows // 10 for name, part in levels.items() if name != "train")
    assert (np.concatenate(list(levels.values())) < COUNTS).all()


def test_pictures_labels_and_factors_go_together() -> None:
    config = opened()
    dataset, labels, factors = open_dataset(config), labels_of(config), factors_of(config)
    assert factors is not None
    assert labels is not None
    assert factors.names == tuple(LEVELS)
    for name, rows in dataset.splits.items():
        np.testing.assert_array_equal(
            rows[:], draw_sprites(factors.levels[name], 16).reshape(len(rows), -1)
        )
        np.testing.assert_array_equal(labels[name], factors.levels[name][:, 0])
    assert dataset.shape == (1, 16, 16)
