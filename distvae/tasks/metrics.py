"""Measures of one resynthesised recording against its original, each named by its variant.

A measure that refuses a recording gives NaN and a reason, never a number that stands for a failure. This module is what
the judging processes import, so it stays light: NumPy, and each measure's package when it is asked for.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Measure = Callable[[Array, Array, int], float]

POWER_FLOOR = 1e-10
"""Digital silence survives trimming, and the divergence of a zero is infinite."""


class Unscorable(ValueError):
    """Why a measure refuses a pair of recordings."""


class Scores(NamedTuple):
    """What the measures say of one recording."""

    values: dict[str, float]
    """NaN where the measure refused."""
    refused: dict[str, str]
    """Measure and reason."""


def pesq_wb(reference: Array, estimate: Array, rate: int) -> float:
    """Wide-band PESQ, P.862.2 MOS-LQO; judged at 16 kHz whatever the rate."""
    return _pesq(_at(reference, rate, 16000), _at(estimate, rate, 16000), 16000, "wb")


def pesq_nb(reference: Array, estimate: Array, rate: int) -> float:
    """Narrow-band PESQ, P.862.1 MOS-LQO; judged at 8 kHz if that is the rate, at 16 kHz otherwise."""
    target = 8000 if rate == 8000 else 16000
    return _pesq(_at(reference, rate, target), _at(estimate, rate, target), target, "nb")


def raw_p862(mapped: float) -> float:
    """The raw P.862 score behind a narrow-band MOS-LQO; the map has poles at .999 and 4.999, hence the clamp."""
    y = min(max(mapped, 1.0), 4.95)
    return (4.6607 - math.log((4.999 - y) / (y - 0.999))) / 1.4945


def stoi(reference: Array, estimate: Array, rate: int) -> float:
    """Short-time objective intelligibility."""
    return _stoi(reference, estimate, rate, extended=False)


def estoi(reference: Array, estimate: Array, rate: int) -> float:
    """Extended short-time objective intelligibility."""
    return _stoi(reference, estimate, rate, extended=True)


def si_sdr(reference: Array, estimate: Array, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, at any rate."""
    s, e = reference.astype(np.float64), estimate.astype(np.float64)
    target = (e @ s) / (s @ s) * s
    signal, distortion = float(target @ target), float((e - target) @ (e - target))
    if not (signal and distortion):
        raise Unscorable("infinite: the resynthesis is silent, or the same as the original")
    return 10 * math.log10(signal / distortion)


def isd(power: Array, estimate: Array) -> float:
    """Itakura-Saito divergence of two power spectra (N, D): mean over bins, then over frames."""
    ratio = np.maximum(power, POWER_FLOOR).astype(np.float64) / np.maximum(estimate, POWER_FLOOR)
    return float((ratio - np.log(ratio) - 1).mean())


WAVEFORM: dict[str, Measure] = {
    "pesq_wb": pesq_wb,
    "pesq_nb": pesq_nb,
    "stoi": stoi,
    "estoi": estoi,
    "si_sdr": si_sdr,
}
"""The measures of waveforms; pesq_nb_raw follows from pesq_nb, and isd compares spectra."""


def score(reference: Array, estimate: Array, rate: int, metrics: Sequence[str]) -> Scores:
    """What the named measures of waveforms say of a resynthesised recording."""
    direct = {"pesq_nb" if name == "pesq_nb_raw" else name for name in metrics}
    found = {name: _try(WAVEFORM[name], reference, estimate, rate) for name in direct}
    if "pesq_nb_raw" in metrics:
        mapped = found["pesq_nb"]
        found["pesq_nb_raw"] = raw_p862(mapped) if isinstance(mapped, float) else mapped
    refused = {name: value for name in metrics if isinstance(value := found[name], str)}
    return Scores({name: math.nan if isinstance(v := found[name], str) else v for name in metrics}, refused)


def available(metrics: Sequence[str]) -> tuple[str, ...]:
    """The measures that can be computed here: all of them, but PESQ only where its package is installed."""
    return tuple(name for name in metrics if not name.startswith("pesq") or find_spec("pesq"))


def notes(metrics: Sequence[str], rate: int) -> list[str]:
    """What a reader of the scores should know about how they were computed here."""
    missing = [name for name in metrics if name not in available(metrics)]
    said = [f"{', '.join(missing)} left out: the package pesq is not installed (pip install pesq needs a C compiler)"]
    resampled = [name for name in ("pesq_wb", "pesq_nb") if name in available(metrics)]
    if rate == 8000:
        resampled = [name for name in resampled if name == "pesq_wb"]
    said_rate = f"{', '.join(resampled)}: recordings of {rate} Hz resampled to 16000 Hz first"
    return said * bool(missing) + [said_rate] * bool(rate != 16000 and resampled)


def _try(measure: Measure, reference: Array, estimate: Array, rate: int) -> float | str:
    """A number, or why there is none."""
    if not reference.any():
        return "the original is silent"
    if not np.isfinite(estimate).all():
        return "the resynthesis holds NaN or infinite samples"
    try:
        value = float(measure(reference, estimate, rate))
    except Unscorable as error:
        return str(error)
    return value if math.isfinite(value) else f"the measure gave {value}"


def _pesq(reference: Array, estimate: Array, rate: int, band: str) -> float:
    import pesq

    try:
        return float(pesq.pesq(rate, reference, estimate, band))
    except pesq.BufferTooShortError:
        raise Unscorable("shorter than a quarter of a second") from None
    except pesq.NoUtterancesError:
        raise Unscorable("no utterance found in the original") from None
    except ValueError as error:  # a silent resynthesis: "cannot convert float NaN to integer"
        raise Unscorable(f"PESQ failed: {error}") from None


def _stoi(reference: Array, estimate: Array, rate: int, extended: bool) -> float:
    from pystoi import stoi as intelligibility

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(intelligibility(reference, estimate, rate, extended=extended))
        except (RuntimeWarning, ValueError):  # pystoi returns 1e-5 with the former, and has no frame for the latter
            raise Unscorable("less than about 0.4 s of it is not silent") from None


def _at(signal: Array, rate: int, target: int) -> Array:
    if rate == target:
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, rate, target, quality="VHQ"))
