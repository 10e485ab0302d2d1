"""How close a restoration comes to a clean reference: for the eye only, nothing is chosen by it."""

import math
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from distvae.data.signals import Signal
from distvae.tasks.recording_scores import score_recording

Floats = NDArray[np.floating]


def psnr(clean: Floats, estimate: Floats, peak: float) -> float:
    """Peak signal-to-noise ratio in dB, of the estimate as it is: not rounded, not clipped."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def snr(clean: Floats, estimate: Floats) -> float:
    """Signal-to-noise ratio in dB."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(float(np.mean(np.square(clean))) / error) if error else math.inf


def fidelity(clean: Signal, estimate: Floats) -> dict[str, float]:
    """PSNR of a picture, SSIM where scikit-image is installed; SNR of a sound, wide-band PESQ where
    pesq is.

    To silence no sound is close: there is nothing to tell.
    """
    if clean.rate is not None and not clean.values.any():
        return {}
    if clean.rate is not None:
        return {"snr": snr(clean.values, estimate)} | _pesq(clean.values, estimate, clean.rate)
    return {"psnr": psnr(clean.values, estimate, clean.peak)} | _ssim(
        clean.values, estimate, clean.peak
    )


def fidelity_figures(picture: bool) -> tuple[str, ...]:
    """What is told of the closeness of a picture, or of a sound."""
    if picture:
        return ("psnr", *["ssim"] * bool(find_spec("skimage")))
    return ("snr", "snr_gain", *["pesq_wb", "pesq_wb_gain"] * bool(find_spec("pesq")))


def fidelity_gains(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What a sound has gained over the noisy one, as published: dB of SNR, and of wide-band PESQ
    (P.862.2 MOS-LQO).

    Over a sound without noise nothing can be fidelity_gains.
    """
    both = [
        name
        for name in ("snr", "pesq_wb")
        if math.isfinite(before.get(name, math.nan)) and name in after
    ]
    return {f"{name}_gain": after[name] - before[name] for name in both}


def _ssim(clean: Floats, estimate: Floats, peak: float) -> dict[str, float]:
    if not find_spec("skimage") or min(clean.shape[:2]) < 7:
        return {}
    from skimage.metrics import structural_similarity

    return {"ssim": float(structural_similarity(clean, estimate, data_range=peak, channel_axis=-1))}


def _pesq(clean: Floats, estimate: Floats, rate: int) -> dict[str, float]:
    if not find_spec("pesq"):
        return {}
    scores = score_recording(clean.mean(-1), estimate.mean(-1), rate, ["pesq_wb"])
    return {name: value for name, value in scores.values.items() if name not in scores.refused}
