"""Baselines: methods without a trained model, scored on the same data as models.

No baseline uses the clean reference to choose a setting. Baselines for pictures use the noise level
in `train.sigma`, or else estimate it on the noisy picture. Baselines for noisy sounds are given its
level, except `stsa-blind`.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.config import Config, DataConfig
from distvae.data import open_dataset
from distvae.data.dataset import Rows
from distvae.data.family import family_of
from distvae.data.generated import AtomsFamily
from distvae.data.signals import Signal
from distvae.data.speech import recordings_of
from distvae.data.windows import PatchFamily, windows_of
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.numerics.arrays import Doubles, Floats
from distvae.tasks.by_groups import Wanted, restore_array
from distvae.tasks.dictionaries import score_dictionary
from distvae.tasks.evaluate import score_recordings
from distvae.tasks.presets import estimate_noise
from distvae.tasks.resynthesis import Coded, Coder
from distvae.tasks.scores import restoration_scores
from distvae.tasks.topk import TopK, largest

T = TypeVar("T")
MEANINGLESS = ("live_atoms", "dead_atoms")
"""Metrics that mean nothing for components, which may be weak but are never dead."""
PictureDenoiser = Callable[[Floats, float, int | None], Floats]
"""A function of a picture with values up to 1, its noise level, and the axis of its colours."""
STRENGTHS = np.geomspace(0.3, 2, 12)
"""Strengths to choose from, in standard deviations of the noise."""
SoundDenoiser = Callable[[Floats, float, int], Floats]
"""A function of one channel, its noise level and its rate."""
Gain = Callable[[Floats, Floats], Floats]
"""A function of the prior and posterior signal-to-noise ratios of each frequency."""
SECONDS = 0.064
"""Length of a frame of a sound in seconds."""
STARTING = 5
"""Frames at the start of a sound that are taken for noise until it is tracked."""
FLOOR = 10**-2.5
"""The smallest prior ratio, which lowers noise by 25 dB."""
NEIGHBOURS = 5
"""Samples in the window of the local filter."""
Filler = Callable[[Floats, int], Floats]
"""A function of one channel with missing samples, and its rate."""
HISTORY = 0.00625
"""Seconds of sound that predict the next sample: one period of a voice at 160 Hz."""
FITS = 10
"""Number of alternations between fitting the predictor and fitting the missing samples."""
RIDGE = 1e-9
"""Ridge relative to the power. With it, every frame has a predictor."""
BLOCK = 8192
FRAMES = 32768
"""The most training frames that are factorised."""
QUIET = 0.003
"""The power under the logarithm of sparse baselines, as in the recipe `speech`."""
UPDATES = 200
"""Updates of the factors, and of the activations of frames to be coded."""


def score_baseline(
    name: str, config: Config, split: str = "test", progress: bool = False
) -> dict[str, float]:
    """Return the scores of a baseline on the recordings of a split, a corrupted picture or sound,
    or known atoms.
    """
    if recordings_of(config.data) is not None:
        code = baseline_coder(name, config.data)
        summary = score_recordings(code, config, split, progress).summary
        return {name: value for name, value in summary.items() if name not in MEANINGLESS}
    if (windows := windows_of(config.data)) is not None:
        return _restored(name, windows, config.train.sigma)
    if isinstance(family := family_of(config.data), AtomsFamily):
        return score_dictionary(name, config, family)
    raise Refusal(
        f"{name}: nothing to compare with on data.kind '{config.data.kind}'; speech, patches or"
        " atoms expected"
    )


def _restored(name: str, windows: PatchFamily, level: float | None) -> dict[str, float]:
    """Return the scores against the clean reference, and for a sound also the gains."""
    if not windows.corruption:
        raise Refusal(
            "data.noise, data.snr, data.drop: the data is not damaged, so there is nothing to"
            " restore; one of them expected, such as data.noise=25 for a picture or data.snr=5 for"
            " a sound"
        )
    clean = windows.clean()
    corrupted = windows.corrupt(clean)
    if corrupted.rate is None:
        restored = restore_picture(name, corrupted, level)
    else:
        restored = restore_sound(name, corrupted, windows.noise_level(clean))
    return restoration_scores(clean, corrupted.values, restored)


def restore_picture(name: str, corrupted: Signal, level: float | None = None) -> Floats:
    """Restore a noisy picture, or one with missing pixels. The level of the noise may be known.

    The strength of non-local means and total variation is chosen on the noisy picture alone, by the
    prediction of held-out pixels (Batson and Royer, 2019; scikit-image's `calibrate_denoiser`).
    """
    if name == "groups":
        return restore_array(corrupted.values, Wanted(level)).values
    refuse_missing(name, "skimage")
    missing = np.isnan(corrupted.values)
    if missing.all((0, 1)).any():
        raise Refusal(f"{name}: a picture without a pixel to go by; one or more expected")
    if missing.any():
        fill = _find_method(name, INPAINTERS, "a picture without some pixels")
        return fill(corrupted.values, missing)
    denoise = _find_method(name, PICTURE_DENOISERS, "a picture under noise")
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


PICTURE_DENOISERS: dict[str, PictureDenoiser] = {
    "nlm": nlm,
    "tv": tv,
    "wavelet": wavelet,
    "bm3d": bm3d,
}
INPAINTERS: dict[str, Callable[[Floats, NDArray[np.bool_]], Floats]] = {"biharmonic": biharmonic}


def restore_sound(name: str, corrupted: Signal, sigma: float) -> Floats:
    """Denoise a sound, or fill in its missing samples, channel by channel."""
    assert corrupted.rate is not None
    rate, channels = corrupted.rate, corrupted.values.T
    missing = np.isnan(channels)
    if missing.all(1).any():
        raise Refusal(f"{name}: a channel without a sample to go by; one or more expected")
    if missing.any():
        fill = _find_method(name, FILLERS, "a sound without some samples")
        return np.stack([fill(channel, rate) for channel in channels], -1)
    if name == "groups":
        return restore_array(corrupted.values, Wanted(), rate).values
    denoise = _find_method(name, SOUND_DENOISERS, "a sound under noise")
    return np.stack([denoise(channel, sigma, rate) for channel in channels], -1)


def zero(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Return silence, whose error is the signal."""
    return np.zeros_like(noisy)


def local(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Filter by `scipy.signal.wiener`, which shrinks samples towards their local mean."""
    from scipy.signal import wiener

    # SciPy divides by zero where nothing varies, and then does not use the result
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(wiener(noisy, NEIGHBOURS, _power(sigma)))


def wiener(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Apply the Wiener filter to each frequency and frame.

    The smoothing is 0.9: on seven sounds, 0.98 gained 1 dB less.
    """
    return _filtered(noisy, sigma, rate, wiener_gain, 0.9)


def stsa(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Minimise the expected squared error of spectral amplitudes (Ephraim and Malah, 1984)."""
    return _filtered(noisy, sigma, rate, stsa_gain, 0.98)


def stsa_blind(noisy: Floats, sigma: float, rate: int) -> Floats:
    """Denoise as `stsa` does, with noise that is tracked in the sound instead of its level."""
    return _filtered(noisy, None, rate, stsa_gain, 0.98)


SOUND_DENOISERS: dict[str, SoundDenoiser] = {
    "zero": zero,
    "local": local,
    "wiener": wiener,
    "stsa": stsa,
    "stsa-blind": stsa_blind,
}


def wiener_gain(prior: Floats, posterior: Floats) -> Floats:
    """Return the gain of least expected squared error for a Gaussian signal in Gaussian noise."""
    return prior / (1 + prior)


def stsa_gain(prior: Floats, posterior: Floats) -> Floats:
    """Return the expected amplitude of a Gaussian signal divided by the observed amplitude."""
    from scipy.special import i0e, i1e

    v = prior / (1 + prior) * posterior
    return np.asarray(
        np.sqrt(np.pi * v) / (2 * posterior) * ((1 + v) * i0e(v / 2) + v * i1e(v / 2))
    )


def _power(sigma: float) -> float:
    """Return the power of the noise, never quite zero."""
    return max(sigma**2, float(np.finfo(float).eps) ** 2)


def track_noise(power: Floats) -> Floats:
    """Return the power of the noise in each frequency and frame of a sound (Gerkmann and Hendriks,
    2012): the probability that a signal is present weighs the last estimate against the frame.
    """
    present = 10**1.5  # the prior ratio where a signal is present: 15 dB
    noise, smooth = power[:, :STARTING].mean(1), np.full(len(power), 0.5)
    tracked = np.empty_like(power)
    for frame, observed in enumerate(power.T):
        absent = (1 + present) * np.exp(-observed / noise * present / (1 + present))
        probability = 1 / (1 + absent)
        smooth = 0.9 * smooth + 0.1 * probability
        probability = np.where(smooth > 0.99, np.minimum(probability, 0.99), probability)
        noise = 0.8 * noise + 0.2 * (probability * noise + (1 - probability) * observed)
        tracked[:, frame] = noise
    return tracked


def _filtered(
    noisy: Floats, sigma: float | None, rate: int, gain: Gain, smoothing: float
) -> Floats:
    """Multiply the short-time spectrum by a gain. Frames overlap by three quarters. Noise without a
    level is tracked.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = hann(min(4 * round(SECONDS * rate / 4), len(noisy)), sym=False)
    transform = ShortTimeFFT(window, max(1, len(window) // 4), rate)
    spectrum = transform.stft(noisy)
    observed = np.maximum(np.square(np.abs(spectrum)), np.finfo(float).tiny)
    noise = track_noise(observed) if sigma is None else _power(sigma) * np.square(window).sum()
    posterior = np.maximum(observed / noise, np.finfo(float).eps)
    return np.asarray(transform.istft(spectrum * _gains(posterior, gain, smoothing), k1=len(noisy)))


def _gains(posterior: Floats, gain: Gain, smoothing: float) -> Floats:
    """Return gains (bins, frames), with decision-directed smoothing of the prior ratio."""
    gains = np.empty_like(posterior)
    passed = np.maximum(posterior[:, 0] - 1, 0)
    for frame, ratio in enumerate(posterior.T):
        prior = np.maximum(smoothing * passed + (1 - smoothing) * np.maximum(ratio - 1, 0), FLOOR)
        gains[:, frame] = np.minimum(gain(prior, ratio), 1)
        passed = np.square(gains[:, frame]) * ratio
    return gains


def linear(holed: Floats, rate: int) -> Doubles:
    """Interpolate linearly between observed samples."""
    missing = np.isnan(holed)
    filled = holed.astype(np.float64)
    filled[missing] = np.interp(np.flatnonzero(missing), np.flatnonzero(~missing), holed[~missing])
    return filled


def autoregressive(holed: Floats, rate: int) -> Doubles:
    """Minimise the squared errors of linear prediction, alternately over the missing samples and
    the predictor, in frames that overlap by half (Janssen, Veldhuis and Vries, 1986).
    """
    length = min(max(2, 2 * round(SECONDS * rate / 2)), len(holed))
    taper = np.hanning(length + 2)[1:-1]
    order = min(max(1, round(HISTORY * rate)), length - 1)
    start, missing = linear(holed, rate), np.isnan(holed)
    total, weight = np.zeros(len(holed)), np.zeros(len(holed))
    for first in [*range(0, len(holed) - length, max(1, length // 2)), len(holed) - length]:
        frame = slice(first, first + length)
        total[frame] += taper * _filled(start[frame], missing[frame], order)
        weight[frame] += taper
    return np.where(missing, total / weight, start)


FILLERS: dict[str, Filler] = {"linear": linear, "ar": autoregressive}


def _filled(values: Doubles, missing: NDArray[np.bool_], order: int) -> Doubles:
    """Return a frame whose missing values are predicted, given a first guess of them."""
    values = values.copy()
    if missing.any() and not missing.all() and values.any():
        for _ in range(FITS):
            values[missing] = _least_errors(values, missing, _predictor(values, order))
    return values


def _predictor(values: Doubles, order: int) -> Doubles:
    """Return the filter (order + 1,) whose output is the linear prediction error."""
    from scipy.linalg import solve_toeplitz

    lags = np.correlate(values, values, "full")[len(values) - 1 :][: order + 1]
    lags[0] *= 1 + RIDGE
    return np.append(1.0, -solve_toeplitz(lags[:-1], lags[1:]))


def _least_errors(values: Doubles, missing: NDArray[np.bool_], predictor: Doubles) -> Doubles:
    """Return the missing values that minimise the squared prediction errors.

    The values solve a banded linear system made of the predictor's autocorrelation.
    """
    from scipy.linalg import solveh_banded

    order = len(predictor) - 1
    lags = np.correlate(predictor, predictor, "full")
    pulled = np.convolve(np.where(missing, 0.0, values), lags)[order : order + len(values)]
    place = np.flatnonzero(missing)
    band = np.zeros((min(order, len(place) - 1) + 1, len(place)))
    for step, row in enumerate(band):
        apart = place[step:] - place[: len(place) - step]
        row[: len(apart)] = np.where(apart <= order, lags[order + np.minimum(apart, order)], 0)
    return np.asarray(solveh_banded(band, -pulled[place], lower=True))


def baseline_coder(name: str, data: DataConfig) -> Coder:
    """Return the coder of a baseline, fitted to the training frames.

    It is `identity`, or `pca-N` or `nmf-N` with N components. `pca-K-of-N` and `topk-K-of-N` keep
    K of N values for each frame, and code log(power + `QUIET`).
    """
    method, components, values = parse_baseline(name, data)
    if method == "identity":
        return lambda power, first: Coded(power, None)
    power = open_dataset(data, quiet=True).splits["train"]
    if method == "topk":
        return topk(power, components, values)
    if values:
        return pca(power, components, values, QUIET)
    return {"pca": pca, "nmf": nmf}[method](power, components)


def parse_baseline(name: str, data: DataConfig) -> tuple[str, int, int]:
    """Return the method of a baseline for speech, its components, and the values that it keeps of
    each frame, 0 for all.
    """
    if name == "identity":
        return name, data.dims, 0
    known = re.fullmatch(r"(pca|nmf|topk)-([1-9]\d*)(?:-of-([1-9]\d*))?", name)
    method, kept, size = known.groups() if known else ("", 0, 0)
    values, components = int(kept), int(size or kept)
    fits = values <= components and (method == "topk" or components <= data.dims)
    if not fits or method not in (("pca", "topk") if size else ("pca", "nmf")):
        raise Refusal(
            f"{name}: no method for speech; identity, pca-N, nmf-N, pca-K-of-N or topk-K-of-N"
            f" expected, with K up to N, and up to {data.dims} components"
        )
    return method, components, values if size else 0


def pca(power: Rows, components: int, values: int | None = None, floor: float = 0.0) -> Coder:
    """Return a coder by the principal components of log power with the largest variance.

    With `values`, each frame keeps this number of its scores, the largest.
    """
    mean, covariance = _moments(power, floor)
    _, vectors = np.linalg.eigh(covariance)
    basis = torch.from_numpy(vectors[:, ::-1][:, :components].astype(np.float32))
    centre = torch.from_numpy(mean.astype(np.float32))

    def code(power: Tensor, first: int) -> Coded:
        scores = ((power + floor).log() - centre) @ basis
        scores = scores if values is None else largest(scores, values)
        return Coded(((scores @ basis.T + centre).exp() - floor).clamp_min(0), scores)

    return code


def topk(power: Rows, latent: int, values: int) -> Coder:
    """Return a coder by a top-k autoencoder of log power."""
    model = TopK.fit((torch.from_numpy(np.array(power)) + QUIET).log_(), latent, values)

    def code(power: Tensor, first: int) -> Coded:
        values = model.encode((power + QUIET).log())
        return Coded((model.decode(values).exp() - QUIET).clamp_min(0), values)

    return code


def nmf(power: Rows, components: int) -> Coder:
    """Return a coder by non-negative factorisation of magnitudes (Lee and Seung, 2001).

    It minimises the Kullback-Leibler divergence on at most FRAMES training frames, evenly spaced.
    The code is the activations.
    """
    from sklearn.decomposition import NMF

    frames = np.sqrt(power[:: -(-len(power) // FRAMES)])
    if components > len(frames):
        raise Refusal(
            f"nmf-{components}: more factors than the {len(frames)} training frames; no more"
            " expected"
        )
    model = NMF(
        components,
        init="nndsvda",
        solver="mu",
        beta_loss="kullback-leibler",
        tol=0,
        max_iter=UPDATES,
        random_state=0,
    ).fit(frames)

    def code(power: Tensor, first: int) -> Coded:
        activations = model.transform(power.sqrt().numpy())
        return Coded(
            torch.from_numpy((activations @ model.components_) ** 2), torch.from_numpy(activations)
        )

    return code


def _moments(power: Rows, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of log power, computed by blocks in double precision."""
    total, product = np.zeros(power.shape[1]), np.zeros((power.shape[1], power.shape[1]))
    for start in range(0, len(power), BLOCK):
        block = np.log(power[start : start + BLOCK] + np.float32(floor)).astype(np.float64)
        total, product = total + block.sum(0), product + block.T @ block
    mean = total / len(power)
    return mean, product / len(power) - np.outer(mean, mean)


def _find_method(name: str, known: Mapping[str, T], what: str) -> T:
    """Return the baseline with this name. Refuse a baseline that does not suit the data."""
    if name not in known:
        raise Refusal(f"{name}: no method for {what}; {', '.join(known)} expected")
    return known[name]
