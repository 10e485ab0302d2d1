"""The pictures of a trained run, by name.

Of a model with an encoder they include traversals of one latent, interpolations between two images,
and random draws of the active latents from the prior, as in the papers on variational sparse coding
(Tonolini, Jensen and Murray-Smith, UAI 2020; ReScience 2019).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.config.recipes import describe, load, recipe_names
from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows, stack
from distvae.data.speech import SpeechFamily, recordings_of
from distvae.data.windows import windows_of
from distvae.files.untrusted import Plain
from distvae.interface import Searches, expect
from distvae.models.posteriors import Redrawable
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE
from distvae.numerics.metrics import live_atoms
from distvae.numerics.noise import EVALUATION, Noise, order
from distvae.tasks import pictures
from distvae.tasks.resynthesis import recordings_of_split, resynthesise, run_coder
from distvae.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = tuple[str, "Figure"]
"""The name of a picture, and the figure."""
DRAWN = (
    *("learning", "spectrogram", "images", "codes", "atoms", "alone", "dictionary"),
    *("traversal", "interpolation", "conditional", "encodings"),
)
"""The names of the pictures that an evaluation can draw."""
RECORDINGS = 12
"""Recordings whose codes are drawn."""
SECONDS = 6
"""Length of the spectrogram of a recording."""
ENCODED_ROWS = 4096
"""Rows whose codes are drawn."""
ATOMS = 64
"""The number of strongest atoms whose effects are drawn."""
RECONSTRUCTED_ROWS = 36
"""Rows that are drawn with their reconstructions."""
CONTEXTS = 64
"""Number of rows whose states give the context in which a latent is switched on."""
FRAMES = 9
"""Steps of a traversal or an interpolation."""
DRAWS = 8
"""Draws of the active latents of an image."""
VARIED = 10
"""The number of strongest live latents that are varied."""
ROWS = 6
"""Images whose codes are drawn, or pairs of images."""


def pictures_of(run: Run, split: str) -> Iterator[Picture]:
    """Yield the pictures of a run by name: of the model's output on a split, of its dictionary if
    it has one, and of the training if its epochs are recorded.
    """
    title = run_title(run)
    recordings = recordings_of(run.config.data)
    if recordings is None:
        yield from _draw_rows(run, split, title)
    else:
        yield from _draw_recordings(run, recordings, split, title)
    if isinstance(run.model, SDM) and run.model.config.dictionary != "identity":
        atoms = run.model.dictionary.numpy(force=True)
        yield "dictionary", pictures.dictionary(atoms, f"{title}: dictionary")
    if epochs := run.epochs():
        yield "learning", pictures.learning(epochs, str(run.info["unit"]), f"{title}: training")


def _draw_recordings(run: Run, data: SpeechFamily, split: str, title: str) -> Iterator[Picture]:
    code = run_coder(run, run.config.eval.latent)
    root, chosen = recordings_of_split(data, split)
    signals = [data.load(root / r.file) for r in chosen[:: math.ceil(len(chosen) / RECORDINGS)]]
    results = [resynthesise(code, signal, data) for signal in signals]
    first = slice(0, SECONDS * data.rate // data.hop)
    before, after = results[0].power[first], results[0].coded.power[first].numpy()
    spectrum = pictures.Spectrum(data.rate, data.hop, run.config.eval.frequencies)
    name = f"{title}: {chosen[0].file}"
    yield "spectrogram", pictures.spectrograms(before, after, spectrum, name)
    codes = [each.coded.code for each in results if each.coded.code is not None]
    yield from _draw_codes(run, torch.cat(codes).numpy(), title)


def _draw_rows(run: Run, split: str, title: str) -> Iterator[Picture]:
    images = load_rows(run, split)
    images = images[order(0, 0, len(images))[:ENCODED_ROWS]]
    shown = images[:RECONSTRUCTED_ROWS]
    with torch.no_grad():
        decoded = expect(run.posterior(torch.tensor(shown)), run.model.decode).numpy()
    yield "images", pictures.pairs(as_images(shown, run), as_images(decoded, run), title)
    codes = run.encode(images)
    yield from _draw_codes(run, codes, title)
    if not isinstance(run.estep, Searches) and as_images(shown, run).ndim == 4:
        yield from draw_latents(run, images, codes, title)


def _draw_codes(run: Run, codes: Array, title: str) -> Iterator[Picture]:
    """Draw the distribution of the values of the code, and the effect of each single atom."""
    if isinstance(run.model, TVAE):
        yield from _draw_bits(run, run.model, codes, title)
        return
    live = live_atoms(torch.from_numpy(codes)).numpy()
    yield "codes", pictures.code_histograms(codes, live, f"{title}: {len(codes)} codes")
    strength = np.sqrt(np.mean(codes**2, axis=0))
    strongest = np.argsort(-strength)[:ATOMS]
    alone = run.decode(np.diag(strength)[strongest])
    nothing = run.decode(np.zeros_like(strength)[None])
    name = f"{title}: each atom alone at its root mean square, strongest first, under its number"
    recordings = recordings_of(run.config.data)
    if recordings is not None:
        change = pictures.decibel(alone) - pictures.decibel(nothing)
        rate, names = recordings.rate, [str(atom) for atom in strongest]
        yield "atoms", pictures.responses(change, names, live[strongest], rate, name)
    else:
        names = [f"{atom}: {strength[atom]:.2g}" for atom in strongest]
        yield "atoms", pictures.fields(as_images(alone - nothing, run), names, name)


def _draw_bits(run: Run, model: TVAE, codes: Array, title: str) -> Iterator[Picture]:
    """Draw the number of active latents, the effect of each latent on the output, and the output
    for each latent alone.
    """
    pi = model.pi.numpy(force=True)
    yield "codes", pictures.active_latents(codes, pi, f"{title}: {len(codes)} codes")
    frequent = np.argsort(-pi)[:ATOMS]
    each = "each latent"
    if len(pi) > ATOMS:
        each = f"each of the {ATOMS} most frequent of {len(pi)} latents"
    name = f"{title}: what {each} adds, under its number and prior \N{GREEK SMALL LETTER PI}"
    names = [f"{h}: {pi[h]:.2g}" for h in frequent]
    changes = added(run.decode, codes[:CONTEXTS].round(), frequent)
    yield "atoms", pictures.fields(as_images(changes, run), names, name)
    alone = run.decode(np.eye(len(pi), dtype=codes.dtype)[frequent])
    name = f"{title}: the output for {each} alone, most frequent first"
    yield "alone", pictures.grid(as_images(alone, run), name)


def added(decode: Callable[[Array], Array], states: Array, latents: NDArray[np.intp]) -> Array:
    """Return the mean effect of each latent on the output, (latents, D), over states (N, H).

    Each latent is switched on and off while the rest of the state is kept. With a linear decoder,
    the effect is the weight of the latent for every state. In a deep decoder, a latent may have no
    effect without other active latents.
    """
    changes = []
    for latent in latents:
        on, off = states.copy(), states.copy()
        on[:, latent], off[:, latent] = 1, 0
        changes.append((decode(on) - decode(off)).mean(0))
    return np.stack(changes)


def draw_latents(run: Run, images: Array, codes: Array, title: str) -> Iterator[Picture]:
    """Yield pictures by name, given some images and their codes."""
    few, shown = images[:ROWS], as_images(images[: 2 * ROWS], run)[:, None]
    yield "traversal", _traversal(run, codes, title)
    if half := len(shown) // 2:
        share = np.linspace(0, 1, FRAMES, dtype=codes.dtype)[:, None]
        first, last = codes[:half, None], codes[half : 2 * half, None]
        frames = _decode_images(run, (1 - share) * first + share * last)
        headings = ["image", *(str(Fraction(k, FRAMES - 1)) for k in range(FRAMES)), "image"]
        table = np.concatenate([shown[:half], frames, shown[half : 2 * half]], 1)
        name = f"{title}: from the code of an image to that of another"
        yield "interpolation", pictures.strips(table, [""] * half, headings, name)
    with torch.no_grad():
        q = run.posterior(torch.tensor(few))
    if isinstance(q, Redrawable):
        noise = Noise(run.config.train.seed, EVALUATION, torch.arange(len(few)))
        states = q.redrawn(DRAWS, noise).numpy()
        frames = _decode_images(run, np.concatenate([codes[:ROWS, None], states], 1))
        active = [f"{int(count)}" for count in states.any(1).sum(-1)]
        headings = ["image", "coded", *(f"draw {k + 1}" for k in range(DRAWS))]
        name = (
            f"{title}: the active values of an image's code, drawn anew from the prior; on the"
            f" left, how many of {codes.shape[1]} are active"
        )
        table = np.concatenate([shown[:ROWS], frames], 1)
        yield "conditional", pictures.strips(table, active, headings, name)
    name = f"{title}: images and the values of their codes"
    yield "encodings", pictures.encodings(shown[:ROWS, 0], codes[:ROWS], name)


def _traversal(run: Run, codes: Array, title: str) -> "Figure":
    """Draw the strongest live latents of a code, each from its least to its greatest value."""
    code, low, high = codes[0], codes.min(0), codes.max(0)
    live = live_atoms(torch.from_numpy(codes)).numpy()
    latents = np.lexsort((-np.abs(code), ~live))[:VARIED]
    frames = np.tile(code, (len(latents), 1 + FRAMES, 1))
    values = np.linspace(low[latents], high[latents], FRAMES, axis=1)
    frames[np.arange(len(latents)), 1:, latents] = values
    names = [f"latent {h}: {low[h]:.2g} to {high[h]:.2g}" for h in latents]
    headings = ["coded", "least", *[""] * (FRAMES - 2), "greatest"]
    name = (
        f"{title}: one latent of an image from its least to its greatest value in {len(codes)}"
        " codes"
    )
    return pictures.strips(_decode_images(run, frames), names, headings, name)


def _decode_images(run: Run, codes: Array) -> Array:
    """Return the images (rows, columns, height, width, channels) of codes (rows, columns, H)."""
    decoded = as_images(run.decode(codes.reshape(-1, codes.shape[-1])), run)
    return decoded.reshape(*codes.shape[:2], *decoded.shape[1:])


def run_title(run: Run) -> str:
    """Return the model, its changed settings, and the name of the recipe.

    For instance: `vsc latent 16 alpha 0.412, from speech-vae`.
    """
    if not run.recipe:
        return run.path.name
    model = run.config.model
    described: dict[str, Plain] = {"model.kind": model.kind, "model.latent": model.latent}
    if run.recipe in recipe_names():
        recipe = load(run.recipe).model
        chosen = {}  # a default of the recipe's model says nothing about another model
        for field in dataclasses.fields(recipe):
            if (value := getattr(recipe, field.name)) != field.default:
                chosen[field.name] = value
        for field in dataclasses.fields(model):
            if (value := getattr(model, field.name)) != chosen.get(field.name, field.default):
                described[f"model.{field.name}"] = value
    return f"{describe(described)}, from {Path(run.recipe).stem}"


def load_rows(run: Run, split: str) -> Rows:
    """Return the rows of one split, or of all splits, of a run's data."""
    dataset = open_dataset(run.config.data, quiet=True)
    return stack([dataset.splits[name] for name in dataset.split_names(split)])


def as_images(rows: Array, run: Run) -> Array:
    """Return image rows (N, D) as (N, height, width, channels), and other rows, for example sounds,
    as (N, values, channels).
    """
    return np.moveaxis(rows.reshape(len(rows), *(run.shape or _likely_shape(run))), 1, -1)


def _likely_shape(run: Run) -> tuple[int, ...]:
    """Return a shape for data without a shape, and for runs that did not record their shape: a
    square picture if the number of values is a square.
    """
    windows = windows_of(run.config.data)
    if windows is not None:
        return -1, *windows.window
    side = math.isqrt(run.dims)
    return (1, side, side) if side * side == run.dims else (1, run.dims)
