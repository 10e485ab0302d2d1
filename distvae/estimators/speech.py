"""An estimator that encodes signals frame by frame, and decodes codes to signals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from distvae.config import SpeechData
from distvae.config.recipes import python_value
from distvae.config.schema import read_section
from distvae.data import audio
from distvae.data.dataset import IN_MEMORY, Array, dataset_of_rows
from distvae.data.speech import Stft, power_of_signal, with_power
from distvae.estimators.models import SDMVAE, Estimator, validation_share
from distvae.files.refusal import Refusal, shown
from distvae.numerics.arrays import Floats, plain_array

Signal = Floats | Tensor
Signals = Signal | Iterable[Signal]
"""Signals of any length, as a list or as the rows of an array, or one signal (samples,)."""


@dataclass(kw_only=True, eq=False, repr=False)
class SpeechCoder(BaseEstimator):
    """A model of the power spectra of signals.

    `transform` returns the codes of frames. `inverse_transform` combines codes with the phase of
    given signals. A signal is divided by its largest sample before encoding, and multiplied by it
    after decoding.
    """

    model: Estimator | None = None
    """The estimator of frames. None takes a sparse dictionary model."""
    sample_rate: int = 16000
    """Samples per second of all signals. Signals are not resampled."""
    window: int = 1024
    """Samples of a frame."""
    hop: int = 256
    """Samples from one frame to the next."""

    def fit(self, X: Signals, y: object = None) -> Self:
        """Train on the frames of signals; the last frames are held out. y is ignored."""
        settings, model = self._settings(), self._new_model()
        frames = self._frames(X)
        share = validation_share(model.validation_fraction)
        count = min(round(share * len(frames)), len(frames) - 1)
        train, val = np.split(frames, [len(frames) - count])
        dataset = dataset_of_rows(train, val if count else train, "frame")
        self.model_ = model.fit_dataset(dataset, {"kind": settings.kind, **asdict(settings)})
        return self

    def transform(self, X: Signals) -> list[Array]:
        """Return the codes of each signal, (frames, codes)."""
        check_is_fitted(self)
        return [self.model_.transform(self._power(signal)) for signal in _list_signals(X)]

    def inverse_transform(self, X: Sequence[Array], signals: Signals) -> list[Array]:
        """Return signals with the decoded power of codes and the phase of `signals`."""
        check_is_fitted(self)
        codes, phases = list(X), _list_signals(signals)
        if len(codes) != len(phases):
            raise Refusal(f"X: codes of {len(codes)} signals; {len(phases)} expected, as signals")
        pairs = zip(codes, phases, strict=True)
        return [self._decoded(code, signal) for code, signal in pairs]

    def reconstruct(self, X: Signals) -> list[Array]:
        """Encode and decode signals, keeping their phase."""
        signals = _list_signals(X)
        return self.inverse_transform(self.transform(signals), signals)

    def fit_transform(self, X: Signals, y: object = None) -> list[Array]:
        """Train on signals, and return their codes."""
        signals = _list_signals(X)
        return self.fit(signals).transform(signals)

    def score(self, X: Signals, y: object = None) -> float:
        """Return the mean bound of log p(x) over all frames, in nats; y is ignored."""
        check_is_fitted(self)
        return self.model_.score(self._frames(X))

    @property
    def history_(self) -> list[dict[str, float]]:
        """The metrics of each epoch of training."""
        check_is_fitted(self)
        return self.model_.history_

    @property
    def n_iter_(self) -> int:
        """The number of epochs trained."""
        return len(self.history_)

    def _new_model(self) -> Estimator:
        """Return an unfitted estimator of frames, by default a sparse dictionary model of power
        spectra.
        """
        if self.model is None:
            return SDMVAE(likelihood="itakura_saito", input="log_standard")
        if not isinstance(self.model, Estimator):
            raise Refusal(
                f"model: {shown(self.model)}; an estimator of rows of distvae expected, such as"
                " SDMVAE()"
            )
        return clone(self.model)

    def _settings(self) -> SpeechData:
        """Return the settings that let commands read recordings as this estimator does."""
        framing = {"rate": self.sample_rate, "window": self.window, "hop": self.hop}
        numbers = {key: python_value(value) for key, value in framing.items()}
        settings: SpeechData = read_section(
            "data", {"kind": SpeechData.kind, "path": IN_MEMORY, "trim_db": None, **numbers}
        )
        return settings

    def _frames(self, X: Signals) -> Array:
        """Return the power spectra of the frames of all signals."""
        signals = _list_signals(X)
        if not signals:
            raise Refusal("X: no signals; one or more expected")
        return np.concatenate([self._power(signal) for signal in signals])

    def _power(self, signal: Signal) -> Array:
        """Return the power spectra of the frames of a signal."""
        scaled, _ = self._scaled(signal)
        return power_of_signal(scaled, self._settings())

    def _decoded(self, code: Array, signal: Signal) -> Array:
        """Return a signal with the decoded power of codes and the phase of `signal`."""
        decoded = self.model_.inverse_transform(code)
        scaled, level = self._scaled(signal)
        frames = Stft(self.window, self.hop).frames(len(scaled))
        if len(decoded) != frames:
            raise Refusal(
                f"X: codes of {len(decoded)} frames; {frames} expected, as the signal has"
            )
        return with_power(decoded, scaled, self._settings()) * np.float32(level)

    def _scaled(self, signal: Signal) -> tuple[Array, float]:
        """Check a signal; return it divided by its largest sample, and the largest sample."""
        values = np.asarray(plain_array(signal))
        settings = self._settings()
        return audio.scaled(audio.checked_signal(values, settings), settings)


def _list_signals(X: Signals) -> list[Signal]:
    """Return signals as a list."""
    if isinstance(X, np.ndarray | Tensor) and X.ndim == 1:
        return [X]
    try:
        signals = None if isinstance(X, str | bytes | Mapping) else iter(X)
    except TypeError:  # a number, or None
        signals = None
    if signals is None:
        raise Refusal(f"X: {type(X).__name__}; a signal or a list of signals expected")
    return list(signals)
