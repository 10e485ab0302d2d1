"""Scores of a sound or a picture against its original: PESQ, STOI, SI-SDR, PSNR and others.

A measure that refuses a recording returns NaN and a reason, never a made-up number. The scoring
processes import this module, so it imports only NumPy, and the package of each measure on first
use. Scores are only reported; no setting depends on them.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.random import mtrand

from distvae.config.schema import POWER_FLOOR
from distvae.files.program import is_installed
from distvae.numerics.arrays import Floats
from distvae.numerics.metrics import declare

if TYPE_CHECKING:
    from distvae.data.signals import Signal

Array = Floats
Measure = Callable[[Array, Array, int], float]

PESQ_SECONDS = 20
"""The longest recording that PESQ scores in one piece.

An utterance and its pause take at least 0.4 s, and with more than 50 utterances the reference code
overruns its tables.
"""
PESQ_MARGIN = 1.0
"""The largest plausible excess of wide-band PESQ over narrow-band PESQ.

For a recording compared with itself, both scores are near their maximum and differ by 0.1. In rare
cases the alignment of P.862 fails on a bad resynthesis. Wide-band PESQ is then as high as that of a
very good resynthesis, and means nothing.
"""


class Unscorable(ValueError):
    """Raised with the reason why a measure refuses a pair of recordings."""


class Scores(NamedTuple):
    """The scores of one recording."""

    values: dict[str, float]
    """Scores by measure; NaN where the measure refused."""
    refused: dict[str, str]
    """The measures that refused, with their reasons."""


def raw_p862(mapped: float) -> float:
    """Return the raw P.862 score of a narrow-band MOS-LQO.

    The mapping has poles at 0.999 and 4.999, so the MOS-LQO is clamped.
    """
    y = min(max(mapped, 1.0), 4.95)
    return (4.6607 - math.log((4.999 - y) / (y - 0.999))) / 1.4945


def si_sdr(reference: Array, estimate: Array, rate: int) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB."""
    s, e = reference.astype(np.float64), estimate.astype(np.float64)
    target = (e @ s) / (s @ s) * s
    error = e - target
    signal, distortion = float(target @ target), float(error @ error)
    if not (signal and distortion):
        raise Unscorable("infinite: the resynthesis is silent, or the same as the original")
    return 10 * math.log10(signal / distortion)


def isd(power: Array, estimate: Array) -> float:
    """Return the Itakura-Saito divergence of power spectra (N, D), averaged over all values."""
    ratio = np.maximum(power, POWER_FLOOR).astype(np.float64) / np.maximum(estimate, POWER_FLOOR)
    return float((ratio - np.log(ratio) - 1).mean())


def _pesq(reference: Array, estimate: Array, rate: int, band: str) -> float:
    """Return PESQ: the MOS-LQO of P.862.2 for the band "wb", and of P.862.1 for the band "nb".

    Narrow-band PESQ of a rate of 8 kHz is computed at 8 kHz, otherwise both are at 16 kHz. For a
    long recording, return the mean over its equal pieces that contain an utterance (see
    `PESQ_SECONDS`).
    """
    target = 8000 if (band, rate) == ("nb", 8000) else 16000
    if rate != target:
        import soxr

        reference, estimate = (
            np.asarray(soxr.resample(each, rate, target, quality="VHQ"))
            for each in (reference, estimate)
        )
    pieces = math.ceil(len(reference) / (PESQ_SECONDS * target)) or 1
    pairs = zip(np.array_split(reference, pieces), np.array_split(estimate, pieces), strict=True)
    scores = [_pesq_piece(*pair, target, band) for pair in pairs]
    heard = [score for score in scores if score is not None]
    if not heard:
        raise Unscorable("no utterance found in the original")
    return float(np.mean(heard))


def _pesq_piece(reference: Array, estimate: Array, rate: int, band: str) -> float | None:
    """Return PESQ, or None if the original has no utterance."""
    import pesq

    if not reference.any():
        return None
    try:
        return float(pesq.pesq(rate, reference, estimate, band))
    except pesq.BufferTooShortError:
        raise Unscorable("shorter than a quarter of a second") from None
    except pesq.NoUtterancesError:
        return None
    except ValueError as error:  # a silent resynthesis: "cannot convert float NaN to integer"
        raise Unscorable(f"PESQ failed: {error}") from None


def _stoi(reference: Array, estimate: Array, rate: int, extended: bool) -> float:
    """Return the short-time objective intelligibility: STOI, or the extended ESTOI."""
    from pystoi import stoi as intelligibility

    with warnings.catch_warnings(), _seeded():
        warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
        try:
            return float(intelligibility(reference, estimate, rate, extended=extended))
        # pystoi returns 1e-5 with this warning, and raises this error if it finds no frame at all
        except (RuntimeWarning, ValueError):
            raise Unscorable("less than about 0.4 s of it is not silent") from None


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed NumPy's global generator, from which pystoi draws noise of 1e-16 for ESTOI."""
    before = mtrand.get_bit_generator()
    mtrand.set_bit_generator(np.random.MT19937(0))
    try:
        yield
    finally:
        mtrand.set_bit_generator(before)


WAVEFORM: dict[str, Measure] = {
    "pesq_wb": partial(_pesq, band="wb"),
    "pesq_nb": partial(_pesq, band="nb"),
    "pesq_nb_raw": lambda reference, estimate, rate: raw_p862(
        _pesq(reference, estimate, rate, "nb")
    ),
    "stoi": partial(_stoi, extended=False),
    "estoi": partial(_stoi, extended=True),
    "si_sdr": si_sdr,
}
"""The measures of waveforms; `isd` compares spectra."""
declare("quality", *WAVEFORM, "isd", "psnr", "ssim", "snr", "squared_error")


def recording_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of measures of recordings among `names`."""
    return tuple(name for name in names if name in WAVEFORM or name == "isd")


def score_recording(reference: Array, estimate: Array, rate: int, metrics: Sequence[str]) -> Scores:
    """Score a resynthesised recording by the named measures of waveforms."""
    values: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in metrics:
        try:
            values[name] = _finite_score(name, reference, estimate, rate, values)
        except Unscorable as reason:
            values[name], refused[name] = math.nan, str(reason)
    if values.get("pesq_wb", math.nan) > values.get("pesq_nb", math.nan) + PESQ_MARGIN:
        refused["pesq_wb"] = (
            f"{values['pesq_wb']:.2f} beside {values['pesq_nb']:.2f} of narrow-band PESQ: P.862 has"
            " aligned the recordings wrongly"
        )
        values["pesq_wb"] = math.nan
    return Scores(values, refused)


def available_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the measures that can be computed: PESQ only if its package is installed."""
    return tuple(name for name in metrics if not name.startswith("pesq") or is_installed("pesq"))


def scoring_notes(metrics: Sequence[str], rate: int) -> list[str]:
    """Return remarks on how the scores are computed: measures left out, and sounds resampled."""
    notes = []
    if missing := [name for name in metrics if name not in available_metrics(metrics)]:
        notes.append(
            f"{', '.join(missing)} left out: the package pesq is not installed; building it takes a"
            " C compiler"
        )
    own_rates = {"pesq_wb": (16000,), "pesq_nb": (8000, 16000), "pesq_nb_raw": (8000, 16000)}
    if moved := [
        name for name in available_metrics(metrics) if rate not in own_rates.get(name, (rate,))
    ]:
        notes.append(f"{', '.join(moved)}: recordings of {rate} Hz resampled to 16000 Hz first")
    return notes


def _finite_score(
    name: str, reference: Array, estimate: Array, rate: int, known: Mapping[str, float]
) -> float:
    """Return a finite score. Raw PESQ is computed from narrow-band PESQ if `known` has it."""
    if not reference.any():
        raise Unscorable("the original is silent")
    if not np.isfinite(estimate).all():
        raise Unscorable("the resynthesis holds NaN or infinite samples")
    if name == "pesq_nb_raw" and math.isfinite(known.get("pesq_nb", math.nan)):
        return raw_p862(known["pesq_nb"])
    value = WAVEFORM[name](reference, estimate, rate)
    if not math.isfinite(value):
        raise Unscorable(f"the measure gave {value}")
    return value


def psnr(clean: Floats, estimate: Floats, peak: float) -> float:
    """Return the peak signal-to-noise ratio in dB of an estimate, neither rounded nor clipped."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def snr(clean: Floats, estimate: Floats) -> float:
    """Return the signal-to-noise ratio in dB."""
    error = float(np.mean(np.square(clean - estimate)))
    return 10 * math.log10(float(np.mean(np.square(clean))) / error) if error else math.inf


def fidelity(clean: "Signal", estimate: Floats) -> dict[str, float]:
    """Return the scores of an estimate: PSNR and SSIM of a picture, SNR and PESQ of a sound.

    SSIM needs scikit-image, and PESQ the package pesq. Silence has no scores.
    """
    values, rate = clean.values, clean.rate
    found: dict[str, float] = {}
    if rate is None:
        found["psnr"] = psnr(values, estimate, clean.peak)
        if is_installed("skimage") and min(values.shape[:2]) >= 7:
            from skimage.metrics import structural_similarity

            span = {"data_range": clean.peak, "channel_axis": -1}
            found["ssim"] = float(structural_similarity(values, estimate, **span))
    elif values.any():
        found["snr"] = snr(values, estimate)
        if is_installed("pesq"):
            scores = score_recording(values.mean(-1), estimate.mean(-1), rate, ["pesq_wb"])
            if not scores.refused:
                found |= scores.values
    return found


def restoration_scores(clean: "Signal", damaged: Floats, restored: Floats) -> dict[str, float]:
    """Return the scores of what was restored, and of a sound also the gains over what was damaged,
    in which missing samples are silent.
    """
    after = fidelity(clean, restored)
    if clean.rate is None:
        return after
    return after | fidelity_gains(fidelity(clean, np.nan_to_num(damaged)), after)


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
