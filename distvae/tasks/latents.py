"""What a model with an encoder makes of codes about those of its images.

One value is varied, two images are passed between, and values that are active are drawn anew, as
the pictures of variational sparse coding have it (Tonolini, Jensen and Murray-Smith, UAI 2020;
ReScience 2019).
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.data.dataset import Array
from distvae.models.posteriors import Redrawable
from distvae.numerics.measures import live_atoms
from distvae.numerics.noise import EVALUATION, Noise
from distvae.tasks import pictures
from distvae.tasks.images import as_images
from distvae.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 9  # of a code on its way
DRAWS = 8  # of the active values of an image
VARIED = 10  # latents, the image's strongest of those that live
ROWS = 6  # images, or pairs of them


def draw_latents(run: Run, images: Array, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """The pictures by name, of some images and their codes."""
    few = images[:ROWS]
    yield "traversal", _traversal(run, codes, title)
    yield "interpolation", _interpolation(run, images[: 2 * ROWS], codes[: 2 * ROWS], title)
    with torch.no_grad():
        q = run.posterior(torch.tensor(few))
    if isinstance(q, Redrawable):
        noise = Noise(run.config.train.seed, EVALUATION, torch.arange(len(few)))
        yield (
            "conditional",
            _conditional(run, few, codes[:ROWS], q.redrawn(DRAWS, noise).numpy(), title),
        )
    yield (
        "encodings",
        pictures.encodings(
            as_images(few, run), codes[:ROWS], f"{title}: images and the values of their codes"
        ),
    )


def traversed(code: Array, latents: NDArray[np.intp], low: Array, high: Array) -> Array:
    """(latents, FRAMES, H) a code (H,) in which one latent at a time goes from its low to its high,
    and no other.
    """
    codes = np.tile(code, (len(latents), FRAMES, 1))
    codes[np.arange(len(latents)), :, latents] = np.linspace(
        low[latents], high[latents], FRAMES, axis=1
    )
    return codes


def strongest(code: Array, live: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(H,) all latents, the strongest of a code first, but after all others those that are dead."""
    return np.lexsort((-np.abs(code), ~live))


def interpolated(first: Array, last: Array) -> Array:
    """(N, FRAMES, H) on straight lines from codes (N, H) to others."""
    share = np.linspace(0, 1, FRAMES, dtype=first.dtype)[:, None]
    return (1 - share) * first[:, None] + share * last[:, None]


def _traversal(run: Run, codes: Array, title: str) -> "Figure":
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
    return pictures.strips(_seen(run, frames), names, headings, name)


def _interpolation(run: Run, images: Array, codes: Array, title: str) -> "Figure":
    half = len(images) // 2
    ends = as_images(images, run)[:, None]
    frames = _seen(run, interpolated(codes[:half], codes[half : 2 * half]))
    shown = np.concatenate([ends[:half], frames, ends[half : 2 * half]], 1)
    headings = ["image", *(str(Fraction(k, FRAMES - 1)) for k in range(FRAMES)), "image"]
    return pictures.strips(
        shown, [""] * half, headings, f"{title}: from the code of an image to that of another"
    )


def _conditional(run: Run, images: Array, codes: Array, states: Array, title: str) -> "Figure":
    frames = _seen(run, np.concatenate([codes[:, None], states], 1))
    names = [f"{int(active)}" for active in states.any(1).sum(-1)]
    headings = ["image", "coded", *(f"draw {k + 1}" for k in range(DRAWS))]
    name = (
        f"{title}: what is active in an image, so many values of {codes.shape[1]}, drawn anew from"
        " the prior"
    )
    return pictures.strips(
        np.concatenate([as_images(images, run)[:, None], frames], 1), names, headings, name
    )


def _seen(run: Run, codes: Array) -> Array:
    """(rows, columns, height, width, channels) what is decoded from codes (rows, columns, H)."""
    decoded = as_images(run.decode(codes.reshape(-1, codes.shape[-1])), run)
    return decoded.reshape(*codes.shape[:2], *decoded.shape[1:])
