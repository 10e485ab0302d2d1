"""The estimator of signals."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV

import distvae
from distvae.data.speech import Stft
from distvae.data.synthesiser import RATE, utterance
from distvae.estimators import SDMVAE, TVAE, SpeechCoder
from distvae.files.refusal import Refusal
from distvae.tasks.resynthesis import resynthesize_file


def coder(**parameters: int) -> SpeechCoder:
    model = SDMVAE(
        latent=8,
        hidden=(16,),
        likelihood="itakura_saito",
        input="log_standard",
        epochs=2,
        device="cpu",
    )
    return SpeechCoder(model=model, **parameters)


SIGNALS = [utterance(0, 0)[:12_000], utterance(1, 0)[:9_000]]


@pytest.fixture(scope="module")
def fitted() -> SpeechCoder:
    return coder().fit(SIGNALS)


def test_signals_come_back_with_their_length_and_level(fitted: SpeechCoder) -> None:
    found = fitted.reconstruct(SIGNALS)
    assert [len(signal) for signal in found] == [12_000, 9_000]
    quieter = fitted.reconstruct([signal / 8 for signal in SIGNALS])
    for loud, quiet in zip(found, quieter, strict=True):
        np.testing.assert_allclose(quiet * 8, loud, rtol=1e-5, atol=1e-6)


def test_every_epoch_has_its_figures(fitted: SpeechCoder) -> None:
    assert fitted.n_iter_ == 2
    assert [record["epoch"] for record in fitted.history_] == [1, 2]
    assert not hasattr(coder(), "history_")


def test_one_signal_is_coded_as_one_of_several(fitted: SpeechCoder) -> None:
    codes = fitted.transform(SIGNALS)
    for alone in (SIGNALS[1], torch.from_numpy(SIGNALS[1])):
        np.testing.assert_array_equal(fitted.transform(alone)[0], codes[1])
    assert codes[1].shape == (9_000 // 256 + 1, 8)


def test_codes_of_another_voice_keep_the_phase_of_the_signal(fitted: SpeechCoder) -> None:
    first, second = SIGNALS[0][:9_000], SIGNALS[1]
    swapped = fitted.transform([second, first])
    for heard, own in zip(
        fitted.inverse_transform(swapped, [first, second]), [first, second], strict=True
    ):
        phases = [Stft(1024, 256).spectrum(torch.from_numpy(each)).angle() for each in (heard, own)]
        turned = torch.polar(torch.ones(()), phases[0] - phases[1]).real
        assert turned.median() > 0.9
    with pytest.raises(Refusal, match="codes of 36 frames; 47 expected"):
        fitted.inverse_transform(swapped, SIGNALS)


def test_a_saved_coder_resynthesises_a_recording_from_the_command_line(
    fitted: SpeechCoder, tmp_path: Path
) -> None:
    peak = np.abs(SIGNALS[0]).max()
    soundfile.write(tmp_path / "in.wav", SIGNALS[0], RATE, subtype="FLOAT")
    fitted.model_.save(tmp_path / "run")
    resynthesize_file(distvae.load(tmp_path / "run"), tmp_path / "in.wav", tmp_path / "out.wav")
    heard, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(heard, fitted.reconstruct(SIGNALS[0])[0], atol=peak * 1e-4)


def test_a_pickle_gives_the_same_codes(fitted: SpeechCoder) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(SIGNALS)[0], fitted.transform(SIGNALS)[0])


def test_a_grid_search_varies_the_model_of_a_coder() -> None:
    search = GridSearchCV(coder(), {"model__latent": [2, 4]}, cv=2, error_score="raise")
    found = search.fit(SIGNALS * 2).best_estimator_
    assert found.transform(SIGNALS)[0].shape[1] == search.best_params_["model__latent"]


def test_any_model_of_rows_codes_frames() -> None:
    model = TVAE(latent=4, states=8, sweeps=2, epochs=1, device="cpu")
    codes = SpeechCoder(model=model).fit(SIGNALS).transform(SIGNALS)[0]
    assert ((codes >= 0) & (codes <= 1)).all()


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros((2, 3, 4)), r"signal: float64 of shape \(3, 4\)"),
        (np.zeros(100), "signal: 100 samples; 1024 or more expected"),
        (np.full(4096, np.nan), "not finite"),
    ],
)
def test_what_is_no_signal_is_refused(
    fitted: SpeechCoder, signal: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        fitted.transform(signal)


def test_signals_may_come_one_after_the_other(fitted: SpeechCoder) -> None:
    expected = fitted.transform(SIGNALS)
    found = fitted.transform(iter(SIGNALS))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_signals_and_codes_of_others_are_refused(fitted: SpeechCoder) -> None:
    for method in (fitted.score, coder().fit):
        with pytest.raises(Refusal, match="X: no signals; one or more expected"):
            method([])
        with pytest.raises(Refusal, match="X: NoneType; a signal or a list of signals expected"):
            method(None)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="X: codes of 2 signals; 1 expected, as signals"):
        fitted.inverse_transform(fitted.transform(SIGNALS), SIGNALS[:1])


def test_frames_are_numpys_numbers_of_samples_too(fitted: SpeechCoder) -> None:
    framing = {"hop": 256, "window": 1024, "sample_rate": RATE}
    numbers: dict[str, Any] = {name: np.int64(value) for name, value in framing.items()}
    found = coder(**numbers).fit(SIGNALS)
    np.testing.assert_array_equal(found.transform(SIGNALS)[0], fitted.transform(SIGNALS)[0])


def test_a_frame_is_left_to_train_on() -> None:
    model = coder().set_params(model__validation_fraction=0.99)
    assert len(model.fit(SIGNALS[0][:1024]).transform(SIGNALS[0])[0]) == 12_000 // 256 + 1


@pytest.mark.parametrize("length", [4199, 4200, 4201])
def test_codes_of_an_odd_window_are_decoded(length: int) -> None:
    signal = np.random.default_rng(0).standard_normal(length)
    model = coder(window=21, hop=7).fit([signal])
    (found,) = model.reconstruct([signal])
    assert len(found) == length


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_a_signal_that_single_precision_does_not_hold_is_refused(
    fitted: SpeechCoder, scale: float
) -> None:
    with pytest.raises(Refusal, match=r"signal: samples of up to .*; others that 32 bits hold"):
        fitted.transform(SIGNALS[0].astype(np.float64) * scale)


def test_a_masked_signal_is_refused(fitted: SpeechCoder) -> None:
    with pytest.raises(Refusal, match="not finite"):
        fitted.transform(np.ma.masked_less(SIGNALS[0], 0))


@pytest.mark.parametrize("model", [LinearRegression(), SDMVAE, coder()])
def test_what_models_no_rows_is_refused(model: Any) -> None:
    with pytest.raises(Refusal, match=r"model: .*; an estimator of rows of distvae expected"):
        SpeechCoder(model=model).fit(SIGNALS)


def test_a_coder_is_cloned_with_its_model() -> None:
    assert clone(coder(hop=128)).get_params()["model__latent"] == 8
