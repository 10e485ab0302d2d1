"""The pictures of a trained run, by name."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.config import TVAEModel
from distvae.data.dataset import Array
from distvae.data.family import HasRecordings, recordings_of
from distvae.interface import Searches, expect
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE
from distvae.numerics.metrics import live_atoms
from distvae.numerics.noise import order
from distvae.tasks import pictures
from distvae.tasks.images import as_images, load_rows
from distvae.tasks.latents import draw_latents
from distvae.tasks.resynthesis import resynthesise, run_coder
from distvae.tasks.scoring import recordings_of_split
from distvae.tasks.titles import run_title
from distvae.train.run import Run

DRAWN = (
    *("learning", "spectrogram", "images", "codes", "atoms", "dictionary"),
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


def pictures_of(run: Run, split: str) -> Iterator[pictures.Picture]:
    """Yield the pictures of a run by name."""
    yield from draw_model(run, split)
    yield from draw_training(run)


def draw_model(run: Run, split: str) -> Iterator[pictures.Picture]:
    """Yield pictures of the model's output on a split, and of its dictionary if it has one."""
    title = run_title(run)
    recordings = recordings_of(run.config.data)
    if recordings is None:
        yield from _draw_rows(run, split, title)
    else:
        yield from _draw_recordings(run, recordings, split, title)
    if isinstance(run.model, SDM) and run.model.config.dictionary != "identity":
        atoms = run.model.dictionary.numpy(force=True)
        yield "dictionary", partial(pictures.dictionary, atoms, f"{title}: dictionary")


def draw_training(run: Run) -> Iterator[pictures.Picture]:
    """Yield pictures of the training, if its epochs are recorded."""
    if epochs := run.epochs():
        searched = isinstance(run.config.model, TVAEModel)
        course = pictures.telemetry if searched else pictures.learning_curves
        title = f"{run_title(run)}: training"
        yield "learning", partial(course, epochs, str(run.info["unit"]), title)


def _draw_recordings(
    run: Run, data: HasRecordings, split: str, title: str
) -> Iterator[pictures.Picture]:
    code = run_coder(run, run.config.eval.latent)
    root, chosen = recordings_of_split(data, split)
    signals = [data.load(root / r.file) for r in chosen[:: math.ceil(len(chosen) / RECORDINGS)]]
    results = [resynthesise(code, signal, data) for signal in signals]
    first = slice(0, SECONDS * data.rate // data.hop)
    before, after = results[0].power[first], results[0].coded.power[first].numpy()
    yield (
        "spectrogram",
        partial(
            pictures.spectrograms,
            before,
            after,
            pictures.Spectrum(data.rate, data.hop, run.config.eval.frequencies),
            f"{title}: {chosen[0].file}",
        ),
    )
    yield from _draw_codes(run, np.concatenate([run.encode(each.power) for each in results]), title)


def _draw_rows(run: Run, split: str, title: str) -> Iterator[pictures.Picture]:
    images = load_rows(run, split)
    images = images[order(0, 0, len(images))[:ENCODED_ROWS]]
    shown = images[:RECONSTRUCTED_ROWS]
    with torch.no_grad():
        decoded = expect(run.posterior(torch.tensor(shown)), run.model.decode).numpy()
    yield "images", partial(pictures.pairs, as_images(shown, run), as_images(decoded, run), title)
    codes = run.encode(images)
    yield from _draw_codes(run, codes, title)
    if not isinstance(run.estep, Searches) and as_images(shown, run).ndim == 4:
        yield from draw_latents(run, images, codes, title)


def _draw_codes(run: Run, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """Draw the distribution of the values of the code, and the effect of each single atom."""
    if isinstance(run.model, TVAE):
        yield from _draw_bits(run, run.model, codes, title)
        return
    live = live_atoms(torch.from_numpy(codes)).numpy()
    yield "codes", partial(pictures.code_histograms, codes, live, f"{title}: {len(codes)} codes")
    strength = np.sqrt(np.mean(codes**2, axis=0))
    strongest = np.argsort(-strength)[:ATOMS]
    alone = run.decode(np.diag(strength)[strongest])
    nothing = run.decode(np.zeros_like(strength)[None])
    name = f"{title}: each atom alone at its root mean square, strongest first, under its number"
    recordings = recordings_of(run.config.data)
    if recordings is not None:
        change = pictures.decibel(alone) - pictures.decibel(nothing)
        rate, names = recordings.rate, [str(atom) for atom in strongest]
        yield "atoms", partial(pictures.responses, change, names, live[strongest], rate, name)
    else:
        names = [f"{atom}: {strength[atom]:.2g}" for atom in strongest]
        yield "atoms", partial(pictures.fields, as_images(alone - nothing, run), names, name)


def _draw_bits(run: Run, model: TVAE, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """Draw the number of active latents, and the effect of each latent on the output."""
    pi = model.pi.numpy(force=True)
    yield "codes", partial(pictures.active_latents, codes, pi, f"{title}: {len(codes)} codes")
    frequent = np.argsort(-pi)[:ATOMS]
    each = "each latent"
    if len(pi) > ATOMS:
        each = f"each of the {ATOMS} most frequent of {len(pi)} latents"
    name = f"{title}: what {each} adds, under its number and prior \N{GREEK SMALL LETTER PI}"
    names = [f"{h}: {pi[h]:.2g}" for h in frequent]
    changes = added(run.decode, codes[:CONTEXTS].round(), frequent)
    yield "atoms", partial(pictures.fields, as_images(changes, run), names, name)


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
