"""Evaluation of a trained run into one folder: scores, pictures, and a resynthesised recording."""

import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distvae.config import TVAEModel
from distvae.data.dataset import Array
from distvae.data.family import HasRecordings, recordings_of
from distvae.files.output import prepare_folder
from distvae.interface import Searches, expect
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE
from distvae.numerics.measures import live_atoms
from distvae.numerics.noise import order
from distvae.tasks import pictures
from distvae.tasks.drawing import DrawingProcess
from distvae.tasks.evaluation import TABLES, Evaluation
from distvae.tasks.images import as_images, load_rows
from distvae.tasks.latents import draw_latents
from distvae.tasks.resynthesis import resynthesise, run_coder, write_sound
from distvae.tasks.scoring import recordings_of_split, score_run
from distvae.tasks.titles import run_title
from distvae.tasks.waiting import announce
from distvae.train.bits import run_arithmetic
from distvae.train.run import Run

RECORDINGS = 12
"""Recordings whose codes are drawn."""
SECONDS = 6
"""Length of the spectrogram of a recording."""
ENCODED_ROWS = 4096
"""Rows whose codes are drawn."""
SOUNDS = ("original", "reconstruction")
"""A recording and its resynthesis."""
DRAWN = (
    *("learning", "spectrogram", "images", "codes", "atoms", "dictionary"),
    *("traversal", "interpolation", "conditional", "encodings"),
)
"""The pictures that an evaluation may draw."""
ATOMS = 64
"""The number of strongest atoms whose effect is drawn."""
RECONSTRUCTED_ROWS = 36
"""Rows that are drawn with their reconstructions."""
CONTEXTS = 64
"""Rows whose other active latents are there when a latent is switched on."""


def evaluate(
    run: Run,
    target: Path | None = None,
    split: str = "test",
    force: bool = False,
    progress: bool = True,
    with_pictures: bool = True,
) -> Evaluation:
    """Score a run on a split, and write tables, sounds and, unless they are not wanted, pictures.

    They go into `evaluation/SPLIT` of the run folder unless another folder is given.
    """
    folder = target or run.path / "evaluation" / split
    prepare_folder(folder, force)
    evaluation = _score_into(folder, run, split, progress)
    if with_pictures:
        announce("drawing pictures", progress)
        write_pictures(run, split, folder)
    return evaluation


def evaluate_while_drawing(
    run: Run, folder: Path, split: str, drawing: DrawingProcess, progress: bool = True
) -> Evaluation:
    """Evaluate a run; another process draws the pictures while this one scores."""
    prepare_folder(folder, force=True)
    drawn = []
    with run_arithmetic(run.info):
        # its largest picture first, because what that shows is known already
        for name, picture in chain(_draw_training(run), _draw_model(run, split)):
            drawn.append(f"{name}.png")
            drawing.draw(picture, folder / drawn[-1])
    evaluation = _score_into(folder, run, split, progress, drawn)
    drawing.finish()
    return evaluation


def _remove_earlier(folder: Path, kept: Collection[str]) -> None:
    """Remove what an evaluation of another run or other data wrote into the folder, except some
    files. A folder without a summary holds no evaluation, and keeps all.
    """
    if not (folder / "summary.json").exists():
        return
    written = {*TABLES, *(f"{name}.wav" for name in SOUNDS), *(f"{name}.png" for name in DRAWN)}
    for name in written.difference(kept):
        (folder / name).unlink(missing_ok=True)


def _score_into(
    folder: Path, run: Run, split: str, progress: bool, drawn: Collection[str] = ()
) -> Evaluation:
    """Score a run on a split, and write tables and sounds in the place of an earlier evaluation,
    of which nothing stays but the pictures that are drawn for this one.
    """
    with run_arithmetic(run.info):
        evaluation = score_run(run, split, progress)
        _remove_earlier(folder, drawn)
        evaluation.save(folder)
        write_sounds(run, split, folder)
    return evaluation


def write_sounds(run: Run, split: str, folder: Path) -> None:
    """Write the first recording of a split and its resynthesis, if the data are recordings."""
    data = recordings_of(run.config.data)
    if data is None:
        return
    root, chosen = recordings_of_split(data, split)
    signal = data.load(root / chosen[0].file)
    result = resynthesise(run_coder(run, run.config.eval.latent), signal, data)
    for name, sound in zip(SOUNDS, (signal, result.signal), strict=True):
        write_sound(folder / f"{name}.wav", sound, data.rate)


def write_pictures(run: Run, split: str, folder: Path) -> list[Path]:
    """Draw the pictures of a run into a folder, and return the files."""
    files = []
    with run_arithmetic(run.info):
        for name, drawing in pictures_of(run, split):
            files.append(folder / f"{name}.png")
            pictures.draw_now(drawing, files[-1])
    return files


def pictures_of(run: Run, split: str) -> Iterator[pictures.Picture]:
    """Yield the pictures of a run by name."""
    yield from _draw_model(run, split)
    yield from _draw_training(run)


def _draw_model(run: Run, split: str) -> Iterator[pictures.Picture]:
    title = run_title(run)
    recordings = recordings_of(run.config.data)
    if recordings is None:
        yield from _draw_rows(run, split, title)
    else:
        yield from _draw_recordings(run, recordings, split, title)
    if isinstance(run.model, SDM) and run.model.config.dictionary != "identity":
        atoms = run.model.dictionary.numpy(force=True)
        yield "dictionary", partial(pictures.dictionary, atoms, f"{title}: dictionary")


def _draw_training(run: Run) -> Iterator[pictures.Picture]:
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
    """Draw the distribution of the values of the code, and the effect of each atom alone."""
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
    """Draw how many latents are active, and what each adds to the output."""
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
    """Return what each latent adds to the output, (latents, D): the mean over states (N, H).

    Each latent is switched on and off, and the others stay. With a linear decoder this is its
    weight whatever the states are. In a deep decoder, one latent alone may add nothing.
    """
    changes = []
    for latent in latents:
        on, off = states.copy(), states.copy()
        on[:, latent], off[:, latent] = 1, 0
        changes.append((decode(on) - decode(off)).mean(0))
    return np.stack(changes)
