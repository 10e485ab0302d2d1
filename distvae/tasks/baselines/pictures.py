"""Baselines for pictures: scikit-image, BM3D, and the groups of windows that `denoise` uses by
default. A baseline uses the noise level in `train.sigma`, or else estimates it on the noisy
picture.

The strength of non-local means and total variation is chosen on the noisy picture alone, by the
prediction of held-out pixels (Batson and Royer, 2019; scikit-image's `calibrate_denoiser`).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from distvae.data.signals import Signal
from distvae.data.windows import distinct_channels
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Floats
from distvae.system import available_cores
from distvae.tasks.baselines.names import find_method
from distvae.tasks.groups import restore as by_groups
from distvae.tasks.presets import estimate_noise

Denoiser = Callable[[Floats, float, int | None], Floats]
"""A function of a picture with values up to 1, its noise level, and the axis of its colours."""
STRENGTHS = np.geomspace(0.3, 2, 12)
"""Strengths to choose from, in standard deviations of the noise."""


def restore(name: str, corrupted: Signal, level: float | None = None) -> Floats:
    """Restore a noisy picture, or one with missing pixels. The level of the noise may be known."""
    if name == "groups":
        return by_groups(distinct_channels(corrupted.values), level, available_cores()).values
    refuse_missing(name, "skimage")
    missing = np.isnan(corrupted.values)
    if missing.all((0, 1)).any():
        raise Refusal(f"{name}: a picture without a pixel to go by; one or more expected")
    if missing.any():
        fill = find_method(name, INPAINTERS, "a picture without some pixels")
        return fill(corrupted.values, missing)
    denoise = find_method(name, DENOISERS, "a picture under noise")
    if min(corrupted.values.shape[:2]) < 2:
        height, width = corrupted.values.shape[:2]
        raise Refusal(f"{name}: a picture of {height} x {width} pixels; 2 x 2 or more expected")
    values, peak = corrupted.values, corrupted.peak
    sigma = (level or estimate_noise(values)) / peak
    if values.shape[-1] > 1:
        restored = denoise(values / peak, sigma, -1)
    else:
        restored = denoise(values[..., 0] / peak, sigma, None)
    return peak * restored.reshape(values.shape)


def nlm(noisy: Floats, sigma: float, axis: int | None) -> Floats:
    """Denoise by non-local means (Buades, Coll and Morel, 2005) of 5x5 patches within 6 pixels."""
    from skimage.restoration import denoise_nl_means

    fixed = {"patch_size": 5, "patch_distance": 6, "sigma": sigma, "channel_axis": axis}
    return _calibrated(denoise_nl_means, noisy, fixed, h=STRENGTHS * sigma)


def tv(noisy: Floats, sigma: float, axis: int | None) -> Floats:
    """Denoise by total variation (Rudin, Osher and Fatemi, 1992; Chambolle, 2004)."""
    from skimage.restoration import denoise_tv_chambolle

    return _calibrated(
        denoise_tv_chambolle, noisy, {"channel_axis": axis}, weight=STRENGTHS * sigma
    )


def wavelet(noisy: Floats, sigma: float, axis: int | None) -> Floats:
    """Denoise by soft thresholds of Haar wavelets (BayesShrink: Chang, Yu and Vetterli, 2000)."""
    refuse_missing("wavelet", "pywt")
    from skimage.restoration import denoise_wavelet

    return np.asarray(
        denoise_wavelet(noisy, sigma, method="BayesShrink", mode="soft", channel_axis=axis)
    )


def bm3d(noisy: Floats, sigma: float, axis: int | None) -> Floats:
    """Denoise by block matching and 3D filtering (Dabov, Foi, Katkovnik and Egiazarian, 2007) with
    the package of its authors. Colours are denoised in luminance and chrominance.
    """
    refuse_missing("bm3d", "bm3d")
    from bm3d import bm3d, bm3d_rgb

    denoise = bm3d if axis is None else bm3d_rgb
    return np.asarray(denoise(noisy, sigma)) if sigma else noisy


def _calibrated(
    denoise: Callable[..., Floats], noisy: Floats, fixed: Mapping[str, object], **strengths: Floats
) -> Floats:
    """Denoise with the strength that predicts held-out pixels best, unless there is no noise."""
    from skimage.restoration import calibrate_denoiser

    if not any(values.any() for values in strengths.values()):
        return noisy
    tried = {name: [value] for name, value in fixed.items()} | strengths
    _, (settings, losses) = calibrate_denoiser(noisy, denoise, tried, extra_output=True)
    return np.asarray(denoise(noisy, **settings[int(np.argmin(losses))]))


def biharmonic(corrupted: Floats, missing: NDArray[np.bool_]) -> Floats:
    """Fill in missing pixels with a surface whose bilaplacian is zero at these pixels."""
    from skimage.restoration import inpaint_biharmonic

    filled = []
    for channel in range(corrupted.shape[-1]):
        plane = np.ascontiguousarray(corrupted[..., channel])
        mask = np.ascontiguousarray(missing[..., channel])
        filled.append(inpaint_biharmonic(plane, mask))
    return np.stack(filled, axis=-1)


DENOISERS: dict[str, Denoiser] = {"nlm": nlm, "tv": tv, "wavelet": wavelet, "bm3d": bm3d}
INPAINTERS: dict[str, Callable[[Floats, NDArray[np.bool_]], Floats]] = {"biharmonic": biharmonic}
