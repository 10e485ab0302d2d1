"""Scores of a restoration against a clean reference. They are only reported; no setting depends on
them.
"""

import math
from collections.abc import Mapping

import numpy as np

from distvae.data.signals import Signal
from distvae.files.packages import is_installed
from distvae.numerics.array_types import Floats
from distvae.numerics.metrics import declare
from distvae.tasks.recording_scores import score_recording

declare("quality", "psnr", "ssim", "snr", "squared_error")


def psnr(clean: Floats, estimate: Floats, peak: float) -> float:
    """Return the peak signal-to-noise ratio in dB of an estimate, neither rounded nor clipped."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def snr(clean: Floats, estimate: Floats) -> float:
    """Return the signal-to-noise ratio in dB."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(float(np.mean(np.square(clean))) / error) if error else math.inf


def fidelity(clean: Signal, estimate: Floats) -> dict[str, float]:
    """Return the scores of an estimate: PSNR and SSIM of a picture, SNR and PESQ of a sound.

    SSIM needs scikit-image, and PESQ the package pesq. Silence has no scores.
    """
    values, rate = clean.values, clean.rate
    if rate is None:
        return {"psnr": psnr(values, estimate, clean.peak)} | _ssim(values, estimate, clean.peak)
    if not values.any():
        return {}
    return {"snr": snr(values, estimate)} | _pesq(values, estimate, rate)


def fidelity_figures(picture: bool) -> tuple[str, ...]:
    """Return the names of the scores of a picture, or of a sound."""
    if picture:
        return ("psnr", *["ssim"] * bool(is_installed("skimage")))
    return ("snr", "snr_gain", *["pesq_wb", "pesq_wb_gain"] * bool(is_installed("pesq")))


def fidelity_gains(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the gains of a restored sound over the noisy one, in SNR (dB) and wide-band PESQ.

    PESQ is MOS-LQO of P.862.2. A sound without noise has no gains, because its SNR is infinite.
    """
    gains = {}
    for name in ("snr", "pesq_wb"):
        is_known = math.isfinite(before.get(name, math.nan))
        if is_known and name in after:
            gains[f"{name}_gain"] = after[name] - before[name]
    return gains


def _ssim(clean: Floats, estimate: Floats, peak: float) -> dict[str, float]:
    if not is_installed("skimage") or min(clean.shape[:2]) < 7:
        return {}
    from skimage.metrics import structural_similarity

    return {"ssim": float(structural_similarity(clean, estimate, data_range=peak, channel_axis=-1))}


def _pesq(clean: Floats, estimate: Floats, rate: int) -> dict[str, float]:
    if not is_installed("pesq"):
        return {}
    scores = score_recording(clean.mean(-1), estimate.mean(-1), rate, ["pesq_wb"])
    return {name: value for name, value in scores.values.items() if name not in scores.refused}
