"""Baselines that fill in the missing samples of one channel of a sound, which are NaN."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distvae.numerics.array_types import Doubles, Floats

Filler = Callable[[Floats, int], Floats]
"""A function of one channel with missing samples, and its rate."""

SECONDS = 0.064
"""Length of a frame in seconds; frames overlap by half."""
HISTORY = 0.00625
"""Seconds of sound that predict the next sample: one period of a voice at 160 Hz."""
FITS = 10
"""Number of alternations between fitting the predictor and fitting the missing samples."""
RIDGE = 1e-9
"""Ridge relative to the power. With it, every frame has a predictor."""


def linear(holed: Floats, rate: int) -> Doubles:
    """Interpolate linearly between observed samples."""
    missing = np.isnan(holed)
    filled = holed.astype(np.float64)
    filled[missing] = np.interp(np.flatnonzero(missing), np.flatnonzero(~missing), holed[~missing])
    return filled


def autoregressive(holed: Floats, rate: int) -> Doubles:
    """Minimise the squared errors of linear prediction frame by frame, alternately over the missing
    samples and the predictor (Janssen, Veldhuis and Vries, 1986).
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
