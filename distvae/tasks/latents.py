"""Pictures of the latent space of a model with an encoder.

They show traversals of one latent, interpolations between two images, and random draws of the
active latents from the prior, as in the papers on variational sparse coding (Tonolini, Jensen and
Murray-Smith, UAI 2020; ReScience 2019).
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.models.posteriors import Redrawable
from distvae.numerics.metrics import live_atoms
from distvae.numerics.noise import EVALUATION, Noise
from distvae.tasks import pictures
from distvae.tasks.images import as_images
from distvae.tasks.pictures.canvas import Drawing
from distvae.train.run import Run

FRAMES = 9
"""Steps of a traversal or an interpolation."""
DRAWS = 8
"""Draws of the active latents of an image."""
VARIED = 10
"""The number of strongest live latents that are varied."""
ROWS = 6
"""Images, or pairs of images."""


def draw_latents(run: Run, images: Array, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """Yield pictures by name, given some images and their codes."""
    few = images[:ROWS]
    yield "traversal", _traversal(run, codes, title)
    if len(images) > 1:
        yield "interpolation", _interpolation(run, images[: 2 * ROWS], codes[: 2 * ROWS], title)
    with torch.no_grad():
        q = run.posterior(torch.tensor(few))
    if isinstance(q, Redrawable):
        noise = Noise(run.config.train.seed, EVALUATION, torch.arange(len(few)))
        states = q.redrawn(DRAWS, noise).numpy()
        yield "conditional", _conditional(run, few, codes[:ROWS], states, title)
    name = f"{title}: images and the values of their codes"
    yield "encodings", partial(pictures.encodings, as_images(few, run), codes[:ROWS], name)


def traversed(code: Array, latents: NDArray[np.intp], low: Array, high: Array) -> Array:
    """Return codes (latents, FRAMES, H): a code (H,) with one latent going from low to high."""
    codes = np.tile(code, (len(latents), FRAMES, 1))
    codes[np.arange(len(latents)), :, latents] = np.linspace(
        low[latents], high[latents], FRAMES, axis=1
    )
    return codes


def strongest(code: Array, live: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return all latents (H,): live latents by decreasing strength in a code, then dead latents."""
    return np.lexsort((-np.abs(code), ~live))


def interpolated(first: Array, last: Array) -> Array:
    """Return codes (N, FRAMES, H) on straight lines between codes (N, H)."""
    share = np.linspace(0, 1, FRAMES, dtype=first.dtype)[:, None]
    return (1 - share) * first[:, None] + share * last[:, None]


def _traversal(run: Run, codes: Array, title: str) -> Drawing:
    code, low, high = codes[0], codes.min(0), codes.max(0)
    latents = strongest(code, live_atoms(torch.from_numpy(codes)).numpy())[:VARIED]
    frames = np.concatenate(
        [np.tile(code, (len(latents), 1, 1)), traversed(code, latents, low, high)], 1
    )
    names = [f"latent {h}: {low[h]:.2g} to {high[h]:.2g}" for h in latents]
    headings = ["coded", "least", *[""] * (FRAMES - 2), "greatest"]
    name = (
        f"{title}: one latent of an image from its least to its greatest value in {len(codes)}"
        " codes"
    )
    return partial(pictures.strips, _decode_images(run, frames), names, headings, name)


def _interpolation(run: Run, images: Array, codes: Array, title: str) -> Drawing:
    half = len(images) // 2
    ends = as_images(images, run)[:, None]
    frames = _decode_images(run, interpolated(codes[:half], codes[half : 2 * half]))
    shown = np.concatenate([ends[:half], frames, ends[half : 2 * half]], 1)
    headings = ["image", *(str(Fraction(k, FRAMES - 1)) for k in range(FRAMES)), "image"]
    name = f"{title}: from the code of an image to that of another"
    return partial(pictures.strips, shown, [""] * half, headings, name)


def _conditional(run: Run, images: Array, codes: Array, states: Array, title: str) -> Drawing:
    frames = _decode_images(run, np.concatenate([codes[:, None], states], 1))
    names = [f"{int(active)}" for active in states.any(1).sum(-1)]
    headings = ["image", "coded", *(f"draw {k + 1}" for k in range(DRAWS))]
    name = (
        f"{title}: the active values of an image's code, drawn anew from the prior; on the left,"
        f" how many of {codes.shape[1]} are active"
    )
    shown = np.concatenate([as_images(images, run)[:, None], frames], 1)
    return partial(pictures.strips, shown, names, headings, name)


def _decode_images(run: Run, codes: Array) -> Array:
    """Return the images (rows, columns, height, width, channels) of codes (rows, columns, H)."""
    decoded = as_images(run.decode(codes.reshape(-1, codes.shape[-1])), run)
    return decoded.reshape(*codes.shape[:2], *decoded.shape[1:])
