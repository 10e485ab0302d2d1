"""Sound files: decoded whole or refused, resampled, trimmed and levelled."""

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config import SpeechData
from distvae.data import audio
from distvae.data.dataset import Array
from distvae.data.signals import read_sound
from distvae.files.refusal import Refusal

Write = Callable[..., Path]


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
