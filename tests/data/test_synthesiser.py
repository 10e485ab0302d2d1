import numpy as np
import pytest
import scipy.signal
import soundfile

from distvae.data import audio
from distvae.data.dataset import Array
from distvae.data.speech import recordings, synthesiser

CASES = [(0, 0), (1, 3), (6, 1), (11, 4)]


def pitch(signal: Array) -> float:
    """The most frequent fundamental of the loud parts, by autocorrelation."""
    blocks = signal[: len(signal) // 800 * 800].reshape(-1, 800)
    loud = blocks[np.square(blocks).mean(1) > 0.2 * np.square(blocks).mean(1).max()]
    correlations = np.stack([scipy.signal.correlate(block, block)[799:] for block in loud])
    return float(np.median(16000 / (correlations[:, 53:230].argmax(1) + 53)))


@pytest.mark.parametrize(("speaker", "number"), CASES)
def test_an_utterance_is_a_function_of_its_numbers(speaker: int, number: int) -> None:
    one = synthesiser.utterance(speaker, number)
    np.testing.assert_array_equal(one, synthesiser.utterance(speaker, number))
    assert not np.array_equal(one[:8000], synthesiser.utterance(speaker, number + 1)[:8000])


@pytest.mark.parametrize(("speaker", "number"), CASES)
def test_utterances_are_mostly_sound_and_never_clip(speaker: int, number: int) -> None:
    signal = synthesiser.utterance(speaker, number)
    assert 1 < len(signal) / synthesiser.RATE < 8
    assert 0.3 < np.abs(signal).max() < 1
    assert 0.6 < len(audio.trim(signal, 30)) / len(signal) < 1


def test_low_and_high_voices_take_turns() -> None:
    pitches = [pitch(synthesiser.utterance(speaker, 0)) for speaker in range(4)]
    assert max(pitches[0], pitches[2]) < 150 < min(pitches[1], pitches[3])


def test_most_energy_is_where_speech_has_it() -> None:
    frequencies, power = scipy.signal.welch(synthesiser.utterance(0, 0), 16000, nperseg=512)
    assert power[frequencies < 4000].sum() > 0.8 * power.sum()
    assert power[frequencies > 4500].sum() > 1e-4 * power.sum()


@pytest.mark.parametrize(("speaker", "number"), CASES)
def test_speech_metrics_take_it_for_speech(speaker: int, number: int) -> None:
    pesq = pytest.importorskip("pesq").pesq
    from pystoi import stoi

    clean = synthesiser.utterance(speaker, number)
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    assert pesq(16000, clean, clean, "wb") > 4.5 > 2.5 > pesq(16000, clean, noisy, "wb")
    assert stoi(clean, clean, 16000) > 0.999 > stoi(clean, noisy, 16000) > 0.4


@pytest.mark.slow
def test_the_built_in_set_is_whole_and_readable() -> None:
    root = synthesiser.folder()
    files = recordings.sound_files(root)
    assert len(files) == synthesiser.SPEAKERS * synthesiser.UTTERANCES
    assert 120 < sum(soundfile.info(root / file).duration for file in files) < 240
