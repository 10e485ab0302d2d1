"""A picture and a sound that are generated and need no file."""

import numpy as np

from distvae.data.dataset import Array
from distvae.data.signals import Signal

PICTURE, SOUND = "built-in picture", "built-in sound"
"""The paths that stand for them."""
SIDE = 96
SECOND = slice(8000, 16000)
"""Half a second in the middle of a built-in recording."""


def example(path: str) -> Signal | None:
    """Return the picture or sound that a name stands for, or None if it is not the name of one."""
    if path == PICTURE:
        return Signal(scene(SIDE)[..., None].astype(np.float64))
    if path == SOUND:
        from distvae.data.speech.synthesiser import RATE, utterance

        return Signal(utterance(0, 0)[SECOND, None].astype(np.float64), rate=RATE)
    return None


def scene(side: int) -> Array:
    """Return a picture of overlapping discs of all sizes, which has edges and plain areas in
    natural proportions.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    picture = np.zeros((side, side), np.float32)
    for _ in range(1000):
        row, column = random.uniform(0, side, 2)
        radius = 4 / np.sqrt(random.uniform(1e-3, 1))
        picture[(y - row) ** 2 + (x - column) ** 2 < radius**2] = random.uniform(0, 255)
    return picture
