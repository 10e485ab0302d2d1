"""Resynthesis: power decoded by a model, with the phase of the input."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from distvae.data.dataset import Array, Recording
from distvae.data.speech import SpeechFamily, Stft, power, recordings_of
from distvae.files.paths import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.interface import Posterior, expect
from distvae.models.posteriors import active_code
from distvae.numerics.noise import EVALUATION, Noise
from distvae.tasks.topk import largest
from distvae.train.run import Run

Latent = Literal["mean", "active", "sample"]
SUFFIXES = (".wav", ".flac")


class Framing(Protocol):
    """The frames of a short-time spectrum."""

    @property
    def window(self) -> int:
        """Samples of a frame."""

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""


class Coded(NamedTuple):
    """Frames that a model or a baseline has encoded and decoded."""

    power: Tensor
    """(N, bins) decoded."""
    code: Tensor | None
    """(N, H); None for a baseline without a code."""


Coder = Callable[[Tensor, int], Coded]
"""A function of power (N, bins) and the number of the first frame in its split."""


class Resynthesis(NamedTuple):
    """A resynthesised recording."""

    signal: Array
    power: Array
    """(N, bins) of the original."""
    coded: Coded


def decode_posterior(run: Run, q: Posterior, row: Tensor, latent: Latent) -> Tensor:
    """Return E[x | z] at the mean of the posteriors of rows, its active values, or one sample."""
    if latent == "mean":
        return expect(q, run.model.decode)
    if latent == "active":
        return run.model.decode(active_code(q)[:, None])[:, 0]
    return expect(q, run.model.decode, 1, Noise(run.config.train.seed, EVALUATION, row))


def run_coder(run: Run, latent: Latent) -> Coder:
    """Return the coder of a run, which decodes the posterior's mean, its active values or one
    sample of it, or the largest values of a code.
    """

    kept = run.config.eval.values

    @torch.inference_mode()
    def code(power: Tensor, first: int) -> Coded:
        row = torch.arange(first, first + len(power))
        q = run.posterior(power, row)
        values = active_code(q) if latent == "active" else q.code
        if kept is None:
            return Coded(decode_posterior(run, q, row, latent).clamp_min(0), values)
        values = largest(values, kept)
        return Coded(run.model.decode(values[:, None])[:, 0].clamp_min(0), values)

    return code


def resynthesise(code: Coder, signal: Array, data: Framing, first: int = 0) -> Resynthesis:
    """Return a signal of the same length, with the decoded power and the phase of the input."""
    stft = Stft(data.window, data.hop)
    spectrum = stft.spectrum(torch.from_numpy(signal))
    original = power(spectrum)
    coded = code(original, first)
    estimate = stft.signal(torch.polar(coded.power.sqrt(), spectrum.angle()), len(signal))
    return Resynthesis(estimate.numpy(), original.numpy(), coded)


def recordings_of_split(data: SpeechFamily, split: str) -> tuple[Path, list[Recording]]:
    """Return the root of the data, and the recordings of one split or of all splits."""
    root, found = data.recordings()
    chosen = [recording for recording in found if split in ("all", recording.split)]
    if not chosen:
        raise Refusal(f"{root}: no recording in split '{split}'; train, val, test or all expected")
    return root, chosen


def resynthesize_file(run: Run, source: Path, target: Path, force: bool = False) -> None:
    """Write the resynthesis of a recording at the run's rate, untrimmed and with its original
    level.
    """
    recordings = recordings_of(run.config.data)
    if recordings is None:
        raise Refusal(f"{run.path}: a run on {run.config.data.kind} data; one on speech expected")
    check_new_file(target, SUFFIXES, force)
    signal, level = recordings.load_whole(source)
    result = resynthesise(run_coder(run, run.config.eval.latent), signal, recordings)
    write_sound(target, result.signal * np.float32(level), recordings.rate)


def write_sound(path: Path, signal: Array, rate: int) -> None:
    """Write 16-bit sound. A signal beyond full scale is scaled down, not clipped."""
    import soundfile

    with atomic_file(path) as temporary:
        peak = max(1.0, float(np.abs(signal).max()))
        soundfile.write(temporary, signal / peak, rate, subtype="PCM_16")
