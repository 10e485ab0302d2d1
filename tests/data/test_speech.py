"""Sounds and their spectra: decoded whole or refused, transformed, cached; the built-in speech."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings
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
from distvae.data.signals import read_sound
from distvae.data.speech import Stft
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from tests.data.conftest import Write

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


def read_mono(path: Path, rate: int) -> Array:
    """Return the mean of a file's channels at a sampling rate."""
    channels, file_rate = audio.decode(path)
    return audio.resample(channels.mean(axis=1), file_rate, rate)


def tone(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> Array:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels", "tolerance"),
    [
        ("wav", "PCM_U8", 8000, 1, 1e-2),
        ("wav", "PCM_24", 44100, 2, 1e-5),
        ("wav", "FLOAT", 44100, 2, 1e-5),
        ("flac", "PCM_16", 8000, 1, 1e-4),
        ("flac", "PCM_24", 44100, 2, 1e-5),
        ("ogg", "VORBIS", 44100, 2, 3e-2),
        ("mp3", "MPEG_LAYER_III", 8000, 1, 1e-1),
    ],
)
def test_a_tone_survives_any_format_rate_and_channels(
    write: Write, suffix: str, subtype: str, rate: int, channels: int, tolerance: float
) -> None:
    path = write(f"tone.{suffix}", np.stack([tone(rate)] * channels, axis=1), rate, subtype)
    signal = read_mono(path, 16000)
    assert signal.dtype == np.float32
    assert signal.shape == (16000,)
    middle = slice(2000, 14000)  # codecs and resamplers ring at the ends
    np.testing.assert_allclose(signal[middle], tone(16000)[middle], atol=tolerance)


@settings(max_examples=25)
@given(
    length=st.integers(3000, 30000),
    start=st.floats(0, 1),
    width=st.floats(0.01, 1),
    quiet=st.floats(-80, -10),
    top_db=st.sampled_from([15.0, 30.0, 60.0]),
)
@pytest.mark.slow
def test_trimming_is_librosas(
    length: int, start: float, width: float, quiet: float, top_db: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from librosa.effects import trim
    signal = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    inside = (np.arange(length) >= start * length) & (np.arange(length) < (start + width) * length)
    signal[~inside] *= np.float32(10 ** (quiet / 20))
    expected, _ = trim(signal, top_db=top_db)
    np.testing.assert_array_equal(audio.trim(signal, top_db), expected)


def test_quiet_ends_are_cut_and_the_peak_is_one(write: Write) -> None:
    silence = np.zeros(16000, np.float32)
    path = write("word.wav", np.concatenate([silence, 0.2 * tone(16000), silence]), subtype="FLOAT")
    signal = audio.load_recording(path, SpeechData())
    assert 16000 <= len(signal) <= 16000 + 2 * 2048
    assert np.abs(signal).max() == 1


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@settings(max_examples=12)
@given(length=st.integers(1, 40000), cut=st.floats(0.02, 0.999))
def test_a_file_is_whole_or_refused_as_truncated(
    suffix: str, length: int, cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(length).uniform(-0.5, 0.5, length), 16000)
    assert len(read_mono(path, 16000)) == length
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(
        Refusal, match=rf"a\.{suffix}: (truncated|cannot be read|\d samples|holds no MPEG)"
    ):
        audio.load_recording(path, SpeechData())


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_any_damage_is_decoded_or_refused(
    suffix: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random, path = np.random.default_rng(seed), tmp_path_factory.mktemp("damage") / f"a.{suffix}"
    soundfile.write(path, random.uniform(-0.5, 0.5, 8000), 16000)
    content = bytearray(path.read_bytes())
    for place in random.integers(0, random.choice([60, len(content)]), 5):
        content[place] = random.integers(256)
    path.write_bytes(content)
    with contextlib.suppress(Refusal):
        assert np.isfinite(read_mono(path, 16000)).all()


def test_a_length_that_its_writer_did_not_know_is_no_truncation(tmp_path: Path) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, tone(16000), 16000, format="WAV", subtype="PCM_16")
    content = bytearray(stream.getvalue())
    place = content.index(b"data") + 4
    content[4:8] = content[place : place + 4] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "piped.wav").write_bytes(content)
    assert len(read_mono(tmp_path / "piped.wav", 16000)) == 16000


def test_values_that_are_not_finite_are_refused(write: Write) -> None:
    for bad in (np.nan, -np.inf):
        signal = tone(16000)
        signal[777] = bad
        with pytest.raises(Refusal, match=r"bad\.wav: .*not finite"):
            read_mono(write("bad.wav", signal, subtype="FLOAT"), 16000)


def test_the_decoder_of_mp3_prints_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that ends in the middle of a frame, which the decoder tells of in C."""
    whole = tmp_path / "whole.mp3"
    soundfile.write(whole, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    content = whole.read_bytes()
    for end in (200, 700, len(content) // 2, len(content) - 50):
        (tmp_path / "cut.mp3").write_bytes(content[:end])
        with contextlib.suppress(Refusal):
            read_sound(tmp_path / "cut.mp3")
    assert capfd.readouterr() == ("", "")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


@pytest.mark.parametrize("text", [b"Xing", b"Info", bytes(100_000)])
def test_a_tag_before_an_mp3_is_passed_over_and_its_text_announces_no_length(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), 16000)
    content, stream = text + b"\xff" * 16, path.read_bytes()
    size = bytes(len(content) >> shift & 127 for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\x00\x00" + size + content
    path.write_bytes(tag + stream)
    assert len(audio.decode(path)[0]) == 40_000
    path.write_bytes(tag + stream[: len(stream) // 2])
    with pytest.raises(Refusal, match=r"a\.mp3: truncated"):
        audio.decode(path)


@pytest.mark.parametrize("form", ["RF64", "NIST"])
def test_a_truncated_file_of_another_format_named_wav_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.wav"
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    soundfile.write(path, signal, 16000, format=form, subtype="PCM_16")
    audio.decode(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Refusal, match=r"a\.wav: truncated"):
        audio.decode(path)
