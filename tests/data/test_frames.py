"""Power spectra: their transform, their cache, and the built-in speech."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.config.schema import POWER_FLOOR
from distvae.data import audio, open_dataset
from distvae.data.dataset import Array
from distvae.data.speech import Stft
from distvae.data.synthesiser import RATE, utterance

Write = Callable[..., Path]
OPEN = "from distvae.config import SpeechData; from distvae.data import open_dataset; import sys\n"
OPEN += "print(open_dataset(SpeechData(path=sys.argv[1])).digest)"
KILL = "import os, signal; from distvae.files import storage\n"
KILL += "storage.wrap_raw = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n" + OPEN


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


def test_the_digest_follows_content_split_and_preparation_but_not_the_place(
    speech: SpeechData, root: Path, write: Write
) -> None:
    first = open_dataset(speech).digest
    moved = root.rename(root.with_name("moved"))
    assert open_dataset(replace(speech, path=str(moved))).digest == first
    moved.rename(root)
    changes: list[dict[str, Any]] = [{"rate": 8000}, {"window": 512}, {"hop": 128}]
    changes += [{"trim_db": None}, {"trim_db": 20.0}, {"level": "keep"}, {"split_seed": 1}]
    digests = [open_dataset(replace(speech, **change)).digest for change in changes]
    write("ann/0.wav", np.random.default_rng(9).uniform(-0.5, 0.5, 6000), subtype="FLOAT")
    digests += [first, open_dataset(speech).digest]
    assert len(set(digests)) == len(digests)


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


def noise(length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32))


@settings(max_examples=20)
@given(
    length=st.integers(513, 20000),
    frame=st.sampled_from([(1024, 64), (1024, 256), (16, 4), (64, 1), (17, 1), (1000, 250)]),
)
def test_the_round_trip_is_exact_to_the_last_sample(length: int, frame: tuple[int, int]) -> None:
    signal, transform = noise(length), Stft(*frame)
    back = transform.signal(transform.spectrum(signal), length)
    assert (back - signal).abs().max() < 1e-6


@pytest.mark.parametrize(("speaker", "number"), [(0, 0), (11, 4)])
def test_utterances_are_mostly_sound_and_speech_metrics_take_them_for_speech(
    speaker: int, number: int
) -> None:
    clean = utterance(speaker, number)
    assert 1 < len(clean) / RATE < 8
    assert 0.3 < np.abs(clean).max() < 1
    assert 0.6 < len(audio.trim(clean, 30)) / len(clean) < 1
    pesq = pytest.importorskip("pesq").pesq
    from pystoi import stoi

    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    assert pesq(16000, clean, clean, "wb") > 4.5 > 2.5 > pesq(16000, clean, noisy, "wb")
    assert stoi(clean, clean, 16000) > 0.999 > stoi(clean, noisy, 16000) > 0.4
