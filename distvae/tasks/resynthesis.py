"""Recordings through a model and back: decoded power, and the phase of the input."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from distvae.data.dataset import Array
from distvae.data.family import recordings_of
from distvae.data.speech.stft import Stft, power
from distvae.files.output import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.interface import expect
from distvae.numerics.noise import EVALUATION, Noise
from distvae.train.run import Run

Latent = Literal["mean", "sample"]
SUFFIXES = (".wav", ".flac")


class Framing(Protocol):
    """How a signal is cut into frames."""

    @property
    def window(self) -> int:
        """Samples of a frame."""

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""


class Coded(NamedTuple):
    """Frames after a model, or a reference, saw them."""

    power: Tensor
    """(N, bins) decoded."""
    code: Tensor | None
    """(N, H), where there is one."""


Coder = Callable[[Tensor, int], Coded]
"""From power (N, bins), whose first frame has this number in its split, to what is decoded."""


class Resynthesis(NamedTuple):
    """A recording that went through a coder."""

    signal: Array
    power: Array
    """(N, bins) of the original."""
    coded: Coded


def run_coder(run: Run, latent: Latent) -> Coder:
    """A run as a coder: by the posterior's mean, or by one sample of it."""

    @torch.inference_mode()
    def code(power: Tensor, first: int) -> Coded:
        row = torch.arange(first, first + len(power))
        q = run.posterior(power, row)
        draws, noise = (
            (1, Noise(run.config.train.seed, EVALUATION, row)) if latent == "sample" else (0, None)
        )
        return Coded(expect(q, run.model.decode, draws, noise).clamp_min(0), q.code)

    return code


def resynthesise(code: Coder, signal: Array, data: Framing, first: int = 0) -> Resynthesis:
    """A signal of the same length, with decoded power under the phase of the input."""
    stft = Stft(data.window, data.hop)
    spectrum = stft.spectrum(torch.from_numpy(signal))
    heard = power(spectrum)
    coded = code(heard, first)
    estimate = stft.signal(torch.polar(coded.power.sqrt(), spectrum.angle()), len(signal))
    return Resynthesis(estimate.numpy(), heard.numpy(), coded)


def resynthesize_file(run: Run, source: Path, target: Path, force: bool = False) -> None:
    """Write a recording's resynthesis at the run's rate: untrimmed, at the level it came with."""
    recordings = recordings_of(run.config.data)
    if recordings is None:
        raise Refusal(f"{run.path}: a run on {run.config.data.kind} data; one on speech expected")
    check_new_file(target, SUFFIXES, force)
    signal, level = recordings.load_whole(source)
    heard = resynthesise(run_coder(run, run.config.eval.latent), signal, recordings)
    write_sound(target, heard.signal * np.float32(level), recordings.rate)


def write_sound(path: Path, signal: Array, rate: int) -> None:
    """Write 16-bit sound; a signal beyond full scale is turned down, not clipped."""
    import soundfile

    with atomic_file(path) as temporary:
        soundfile.write(
            temporary, signal / max(1.0, float(np.abs(signal).max())), rate, subtype="PCM_16"
        )
