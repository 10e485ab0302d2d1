"""Everything there is to see of a trained run, in one folder: scores, pictures, and a recording
before and after.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

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
from distvae.tasks.evaluation import Evaluation
from distvae.tasks.images import as_images, load_rows
from distvae.tasks.latents import draw_latents
from distvae.tasks.resynthesis import resynthesise, run_coder, write_sound
from distvae.tasks.scoring import of_split, score_run
from distvae.tasks.titles import run_title
from distvae.train.bits import run_arithmetic
from distvae.train.run import Run

HEARD = 12  # recordings whose codes are drawn
SECONDS = 6  # of a recording drawn as a spectrogram
SEEN = 4096  # images whose codes are drawn
ATOMS = 64  # the strongest, whose effect is drawn
SHOWN = 36  # images drawn over their reconstructions


def evaluate(
    run: Run,
    target: Path | None = None,
    split: str = "test",
    force: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Judge a run on a split and write tables, pictures and sounds; by default into its own
    folder.
    """
    folder = target or run.path / "evaluation" / split
    prepare_folder(folder, force)
    with run_arithmetic(run.info):
        judgement = score_run(run, split, progress)
        judgement.save(folder)
        for name, figure in draw(run, split, folder):
            pictures.save(figure, folder / f"{name}.png")
    return judgement


def draw(run: Run, split: str, sounds: Path) -> Iterator[pictures.Picture]:
    """The pictures of a run by name; the first recording of the split goes to a folder of
    sounds.
    """
    title = run_title(run)
    recordings = recordings_of(run.config.data)
    if recordings is None:
        yield from _of_images(run, split, title)
    else:
        yield from _of_speech(run, recordings, split, title, sounds)
    model = run.config.model
    if isinstance(run.model, SDM) and run.model.config.dictionary != "identity":
        yield (
            "dictionary",
            pictures.dictionary(run.model.dictionary.numpy(force=True), f"{title}: dictionary"),
        )
    if epochs := run.epochs():
        course = pictures.telemetry if isinstance(model, TVAEModel) else pictures.learning_curves
        yield "learning", course(epochs, str(run.info["unit"]), f"{title}: training")


def _of_speech(
    run: Run, data: HasRecordings, split: str, title: str, sounds: Path
) -> Iterator[pictures.Picture]:
    code = run_coder(run, run.config.eval.latent)
    root, chosen = of_split(data, split)
    signals = [data.load(root / r.file) for r in chosen[:: math.ceil(len(chosen) / HEARD)]]
    heard = [resynthesise(code, signal, data) for signal in signals]
    write_sound(sounds / "original.wav", signals[0], data.rate)
    write_sound(sounds / "reconstruction.wav", heard[0].signal, data.rate)
    first = slice(0, SECONDS * data.rate // data.hop)
    before, after = heard[0].power[first], heard[0].coded.power[first].numpy()
    yield (
        "spectrogram",
        pictures.spectrograms(before, after, data.rate, data.hop, f"{title}: {chosen[0].file}"),
    )
    yield from _of_codes(run, np.concatenate([run.encode(each.power) for each in heard]), title)


def _of_images(run: Run, split: str, title: str) -> Iterator[pictures.Picture]:
    images = load_rows(run, split)
    images = images[order(0, 0, len(images))[:SEEN]]
    shown = images[:SHOWN]
    with torch.no_grad():
        decoded = expect(run.posterior(torch.tensor(shown)), run.model.decode).numpy()
    yield "images", pictures.pairs(as_images(shown, run), as_images(decoded, run), title)
    codes = run.encode(images)
    yield from _of_codes(run, codes, title)
    if not isinstance(run.estep, Searches) and as_images(shown, run).ndim == 4:
        yield from draw_latents(run, images, codes, title)


def _of_codes(run: Run, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """How the values of the code are distributed, and what each does alone."""
    if isinstance(run.model, TVAE):
        yield from _of_bits(run, run.model, codes, title)
        return
    live = live_atoms(torch.from_numpy(codes)).numpy()
    yield "codes", pictures.code_histograms(codes, live, f"{title}: {len(codes)} codes")
    strength = np.sqrt(np.mean(codes**2, axis=0))
    strongest = np.argsort(-strength)[:ATOMS]
    alone, nothing = (
        run.decode(np.diag(strength)[strongest]),
        run.decode(np.zeros_like(strength)[None]),
    )
    name = f"{title}: each atom alone at its root mean square, strongest first"
    recordings = recordings_of(run.config.data)
    if recordings is not None:
        change = pictures.decibel(alone) - pictures.decibel(nothing)
        rate, names = recordings.rate, [str(atom) for atom in strongest]
        yield "atoms", pictures.responses(change, names, live[strongest], rate, name)
    else:
        names = [f"{strength[atom]:.2g}" for atom in strongest]
        yield "atoms", pictures.fields(as_images(alone - nothing, run), names, name)


def _of_bits(run: Run, model: TVAE, codes: Array, title: str) -> Iterator[pictures.Picture]:
    """How many latents are active, and what each adds to what is decoded without any."""
    pi = model.pi.numpy(force=True)
    yield "codes", pictures.active_latents(codes, pi, f"{title}: {len(codes)} codes")
    frequent, none = np.argsort(-pi)[:ATOMS], np.zeros((1, len(pi)), np.float32)
    changes = run.decode(np.eye(len(pi), dtype=np.float32)[frequent]) - run.decode(none)
    each = (
        f"each of the {ATOMS} most frequent of {len(pi)} latents"
        if len(pi) > ATOMS
        else "each latent"
    )
    name = f"{title}: what {each} alone adds, under its prior $\\pi_h$"
    yield (
        "atoms",
        pictures.fields(as_images(changes, run), [f"{pi[h]:.2g}" for h in frequent], name),
    )
