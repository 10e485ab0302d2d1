"""A trained run accepts data of its kind. Other data is refused, and the refusal names the expected
data.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from distvae.config import ImageData
from distvae.data import open_dataset
from distvae.data.speech import Stft, power
from distvae.files.refusal import Refusal
from distvae.tasks.codes import encode
from distvae.tasks.resynthesis import resynthesize_file
from distvae.train.run import InputFormat, Run

POWERS = np.random.default_rng(0).exponential(size=(3, 257)).astype(np.float32)
PIXELS = np.random.default_rng(0).random((3, 36), np.float32)


def spoilt(value: float) -> np.ndarray:
    return np.where(np.arange(POWERS.size).reshape(POWERS.shape) == 5, value, POWERS)


ARRAY = "an array (power spectra, 257)"
SPEECH: list[tuple[Any, str]] = [
    (spoilt(np.nan), "x: holds NaN; finite values expected"),
    (spoilt(np.inf), "x: holds an infinite value"),
    (spoilt(-0.5), "x: holds -0.5; at least 0 and at most 1e+16 expected, as in training"),
    (np.ones(500), f"x: 500 values in a row, as of a signal; {ARRAY} expected"),
    (np.zeros(4096), "signal: silent; a sound expected"),
    (np.zeros((2, 513)), f"x: rows of 513 values; {ARRAY} expected"),
    (np.zeros((0, 257)), f"x: no rows; {ARRAY} with one or more expected"),
    ([[1.0], [1.0, 2.0]], "x: rows of different lengths"),
    (POWERS.astype(complex), "x: holds complex128; real numbers expected"),
    (np.full((2, 257), "a"), "x: holds <U1; real numbers expected"),
]
IMAGES: list[tuple[Any, str]] = [
    (np.full((3, 36), 255, np.uint8), "x: holds 255; at least 0 and at most 1 expected"),
    (
        PIXELS.reshape(3, 9, 4),
        "x: an array of (3, 9, 4); images of (6, 6), as the run was trained on",
    ),
    (PIXELS[0], "x: 36 values in a row; an array (images, 36) expected, such as x.reshape(1, -1)"),
]
CODES: list[tuple[Any, str]] = [
    (np.zeros((2, 4)), "z: rows of 4 values; an array (codes, 5) expected"),
    (np.zeros(5), "z: 5 values in a row; an array (codes, 5) expected, such as z.reshape(1, -1)"),
    (np.full((2, 5), np.nan), "z: holds NaN"),
]


def refused(call: Callable[[Any], object], given: Any, words: str) -> None:
    with pytest.raises(Refusal, match=re.escape(words)) as refusal:
        call(given)
    assert len(str(refusal.value)) < 300


def test_what_is_no_power_spectrum_no_image_and_no_code_is_refused(
    speech_run: Run, image_run: Run, bars_run: Run, tmp_path: Path
) -> None:
    calls = ((speech_run.encode, SPEECH), (image_run.encode, IMAGES), (image_run.decode, CODES))
    for call, cases in calls:
        for given, words in cases:
            refused(call, given, words)
    with pytest.raises(Refusal, match="there: holds 7; at least 0"):
        image_run.encode(7 + 0 * PIXELS, "there")
    (tmp_path / "x.csv").write_text("1,2\n")
    for path in (tmp_path / "x.csv", tmp_path, tmp_path / "missing.png"):
        refused(bars_run.encode, path, "a path, but data of kind 'bars' is made, not read")


def test_values_in_other_units_than_those_of_training_are_refused(
    speech_run: Run, bars_run: Run
) -> None:
    for run in (speech_run, bars_run):
        least, most = run.info["range"]
        assert least < most
        loudest = np.full((1, run.dims), 99 * most, np.float32)
        assert np.isfinite(run.encode(loudest)).all()
        words = "300 times the largest value of training; values in the same units"
        refused(run.encode, 300 * loudest / 99, words)
    info = bars_run.info.copy()
    del info["range"]  # as in a run from before it was recorded
    assert InputFormat.of_run(bars_run.config, bars_run.dims, info).largest == np.inf
    assert InputFormat.of_run(bars_run.config, bars_run.dims, bars_run.info).largest < 10


def test_images_are_coded_as_rows_of_any_type_and_come_back_as_images(
    image_run: Run, tmp_path: Path
) -> None:
    codes = image_run.encode(PIXELS)
    as_tensor, as_list = torch.from_numpy(PIXELS), PIXELS.tolist()
    given: Any
    for given in (as_tensor, as_list, PIXELS.astype(np.float64), np.asfortranarray(PIXELS)):
        np.testing.assert_array_equal(image_run.encode(given), codes)
    binary = (PIXELS > 0.5).astype(np.uint8)
    expected = image_run.encode(binary.astype(np.float32))
    np.testing.assert_array_equal(image_run.encode(binary), expected)
    bytes_ = np.random.default_rng(0).integers(0, 256, (3, 6, 6), np.uint8)
    rows = bytes_.reshape(3, 36) / np.float32(255)
    codes, decoded = image_run.encode(rows), image_run.reconstruct(rows)
    for given in (bytes_, rows.reshape(3, 6, 6), rows.reshape(3, 6, 6, 1)):
        np.testing.assert_array_equal(image_run.encode(given), codes)
        again = image_run.reconstruct(given)
        assert again.shape == given.shape
        np.testing.assert_array_equal(again.reshape(3, 36), decoded)
    Image.fromarray(bytes_[1]).save(tmp_path / "one.png")
    for one in (bytes_[1], tmp_path / "one.png"):
        np.testing.assert_allclose(image_run.encode(one), codes[1:2], rtol=1e-5, atol=1e-6)
        assert image_run.reconstruct(one).shape == (6, 6)


def test_a_recording_is_coded_as_its_frames_and_heard_again(
    speech_run: Run, speech: Path, tmp_path: Path
) -> None:
    file = speech / "test/dan/0.wav"
    signal = soundfile.read(file, dtype="float32")[0]
    frames = signal / np.abs(signal).max()
    codes = speech_run.encode(power(Stft(512, 128).spectrum(torch.from_numpy(frames))))
    given: Any
    for given in (file, str(file), signal, torch.from_numpy(signal), signal / 8):
        np.testing.assert_allclose(speech_run.encode(given), codes, rtol=1e-3, atol=1e-4)
    resynthesize_file(speech_run, file, tmp_path / "heard.wav")
    heard, _ = soundfile.read(tmp_path / "heard.wav")
    for given, scale in ((file, 1), (signal, 1), (signal / 8, 8)):
        np.testing.assert_allclose(speech_run.reconstruct(given) * scale, heard, atol=2e-4)


def test_a_folder_is_coded_as_all_its_rows(speech_run: Run, image_run: Run, speech: Path) -> None:
    for run, path in ((speech_run, speech), (image_run, Path(image_run.config.data.path))):
        dataset = open_dataset(run.config.data, quiet=True)
        rows = np.concatenate([dataset.splits[name][:] for name in dataset.split_names("all")])
        assert len(run.encode(path)) == len(rows)
        np.testing.assert_array_equal(np.sort(run.encode(path), 0), np.sort(run.encode(rows), 0))


def test_data_of_another_width_is_refused_by_its_name_and_leaves_no_file(
    image_run: Run, bars_run: Run, tmp_path: Path
) -> None:
    target = tmp_path / "codes.parquet"
    with pytest.raises(Refusal, match="bars: data points of 4 values; 36 expected by "):
        encode(image_run, bars_run.config.data, target)
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "other.npz", x=np.zeros((20, 6, 6), np.uint8))
    assert encode(image_run, ImageData(path=str(tmp_path / "other.npz")), target) == 20
