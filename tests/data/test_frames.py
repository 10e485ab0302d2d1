"""Power spectra: their transform, their cache, and the built-in speech."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.config.schema import POWER_FLOOR
from distvae.data import audio, open_dataset
from distvae.data.dataset import Array
from distvae.data.speech import Stft, power
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from distvae.models.likelihoods import ItakuraSaito

Write = Callable[..., Path]
OPEN = "from distvae.config import SpeechData; from distvae.data import open_dataset; import sys\n"
OPEN += "print(open_dataset(SpeechData(path=sys.argv[1])).digest)"
KILL = "import os, signal; from distvae.data import rows\n"
KILL += "rows.wrap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n" + OPEN
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + OPEN


@pytest.fixture
def speech(write: Write, root: Path, cache: Path) -> SpeechData:
    for speaker in ("ann", "bob", "cat", "dan"):
        for number, length in enumerate((6000, 20000)):
            noise = np.random.default_rng([ord(speaker[0]), number]).uniform(-0.5, 0.5, length)
            write(f"{speaker}/{number}.wav", noise, subtype="FLOAT")
    return SpeechData(path=str(root))


def spectra(path: Path) -> Array:
    """Power spectra by SciPy, for recordings without quiet ends."""
    signal, _ = soundfile.read(path)
    signal = np.pad(signal / np.abs(signal).max(), 512, mode="reflect")
    window = scipy.signal.windows.cosine(1024)
    starts = range(0, len(signal) - 1023, 256)
    return np.stack(
        [np.abs(np.fft.rfft(window * signal[start : start + 1024])) ** 2 for start in starts]
    )


def remains(cache: Path) -> list[Path]:
    return [path for path in (cache / "frames").iterdir() if path.suffix != ".lock"]


def test_rows_are_the_power_spectra_of_the_recordings_in_order(
    speech: SpeechData, root: Path
) -> None:
    dataset = open_dataset(speech, quiet=True)
    assert (dataset.unit, dataset.dims, dataset.root) == ("frame", 513, root)
    for split, rows in dataset.splits.items():
        parts = list(dataset.rows(split))
        assert parts[-1][1].stop == len(rows)
        for recording, part in parts:
            np.testing.assert_allclose(
                rows[part], spectra(root / recording.file), rtol=1e-3, atol=1e-3
            )


def test_silence_inside_a_recording_has_the_least_power(write: Write, speech: SpeechData) -> None:
    noise = np.random.default_rng(9).uniform(-0.5, 0.5, 6000)
    write("ann/2.wav", np.concatenate([noise, np.zeros(4096), noise]), subtype="FLOAT")
    least = [rows[:].min() for rows in open_dataset(speech).splits.values()]
    assert min(least) == np.float32(POWER_FLOOR)


def test_rows_are_mapped_and_cannot_be_written(speech: SpeechData) -> None:
    before = pa.total_allocated_bytes()
    rows = open_dataset(speech).splits["train"][:]
    assert pa.total_allocated_bytes() == before
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 8000},
        {"window": 512},
        {"hop": 128},
        {"trim_db": None},
        {"trim_db": 20.0},
        {"level": "keep"},
    ],
)
def test_the_digest_follows_every_parameter_of_the_preparation(
    speech: SpeechData, change: dict[str, object]
) -> None:
    changed = replace(speech, **change)  # type: ignore[arg-type]
    assert open_dataset(changed).digest != open_dataset(speech).digest


def test_the_digest_follows_content_and_split_but_not_the_place(
    speech: SpeechData, root: Path, write: Write
) -> None:
    first = open_dataset(speech).digest
    moved = root.rename(root.with_name("moved"))
    assert open_dataset(replace(speech, path=str(moved))).digest == first
    moved.rename(root)
    drawn = {open_dataset(replace(speech, split_seed=seed)).digest for seed in range(6)}
    assert len(drawn) > 1
    write("ann/0.wav", np.random.default_rng(9).uniform(-0.5, 0.5, 6000), subtype="FLOAT")
    assert open_dataset(speech).digest not in drawn | {first}


def test_one_bad_recording_is_refused_by_name_and_nothing_is_kept(
    speech: SpeechData, write: Write, cache: Path
) -> None:
    write("bob/2.wav", np.zeros(8000))
    with pytest.raises(Refusal, match=r"bob/2\.wav: silent"):
        open_dataset(speech)
    assert remains(cache) == []


def run(code: str, config: SpeechData) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, config.path]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_build_does_not_count(speech: SpeechData, cache: Path) -> None:
    process = run(KILL, speech)
    process.communicate()
    assert process.returncode == -9
    assert remains(cache)
    dataset = open_dataset(speech)
    assert len(dataset.splits["train"]) == sum(
        part.stop - part.start for _, part in dataset.rows("train")
    )
    assert [path.name for path in remains(cache)] == [dataset.digest]


@pytest.mark.slow
def test_a_full_disk_is_refused_and_leaves_nothing(speech: SpeechData, cache: Path) -> None:
    process = run(FULL, speech)  # a limit on the size of files stands in for the disk
    _, errors = process.communicate()
    assert "Refusal" in errors
    assert "set DISTVAE_CACHE to another folder" in errors
    assert remains(cache) == []


def test_recordings_below_the_cache_keep_their_own_name(
    speech: SpeechData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTVAE_CACHE", str(Path(speech.path).parent))
    assert open_dataset(speech).name == Path(speech.path).name


def noise(length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32))


@given(length=st.integers(513, 20000), hop=st.sampled_from([64, 128, 256]))
def test_the_round_trip_is_exact_to_the_last_sample(length: int, hop: int) -> None:
    signal = noise(length)
    back = Stft(1024, hop).signal(Stft(1024, hop).spectrum(signal), length)
    assert (back - signal).abs().max() < 1e-6


def test_frames_are_plain_fourier_transforms_under_a_sine_window() -> None:
    signal = noise(5000)
    padded = np.pad(signal.numpy().astype(np.float64), 512, mode="reflect")
    window = scipy.signal.windows.cosine(1024)
    expected = [np.fft.rfft(window * padded[start : start + 1024]) for start in range(0, 5000, 256)]
    np.testing.assert_allclose(
        Stft(1024, 256).spectrum(signal).numpy(), np.stack(expected), atol=2e-4
    )


def test_digital_silence_has_a_power_whose_density_is_bounded() -> None:
    """log p of a frame is at most that of its own power taken for the variance; of a zero there is
    no such bound.
    """
    heard = power(Stft(1024, 256).spectrum(torch.zeros(2048)))
    assert heard.unique().tolist() == [pytest.approx(POWER_FLOOR)]
    log_variance = (
        torch.linspace(-80, 0, 161)
        .expand(len(heard), 161)
        .unsqueeze(-1)
        .expand(-1, -1, heard.shape[1])
    )
    found = ItakuraSaito()(heard, log_variance, None)
    assert found.max() <= heard.shape[1] * (-math.log(POWER_FLOOR) - 1) * (1 + 1e-6)
    assert (found[:, 0] < found[:, 100]).all()


CASES = [(0, 0), (11, 4)]


@pytest.mark.parametrize(("speaker", "number"), CASES)
def test_utterances_are_mostly_sound_and_never_clip(speaker: int, number: int) -> None:
    signal = utterance(speaker, number)
    assert 1 < len(signal) / RATE < 8
    assert 0.3 < np.abs(signal).max() < 1
    assert 0.6 < len(audio.trim(signal, 30)) / len(signal) < 1


@pytest.mark.parametrize(("speaker", "number"), CASES)
def test_speech_metrics_take_it_for_speech(speaker: int, number: int) -> None:
    pesq = pytest.importorskip("pesq").pesq
    from pystoi import stoi

    clean = utterance(speaker, number)
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    assert pesq(16000, clean, clean, "wb") > 4.5 > 2.5 > pesq(16000, clean, noisy, "wb")
    assert stoi(clean, clean, 16000) > 0.999 > stoi(clean, noisy, 16000) > 0.4


@pytest.mark.parametrize(
    ("window", "hop", "error"),
    [(16, 4, 1e-6), (64, 1, 1e-6), (17, 1, 1e-6), (1000, 250, 1e-6), (1024, 512, 3e-5)],
)
def test_the_round_trip_is_exact_for_other_windows(window: int, hop: int, error: float) -> None:
    signal, transform = noise(5119), Stft(window, hop)
    assert (transform.signal(transform.spectrum(signal), 5119) - signal).abs().max() < error
