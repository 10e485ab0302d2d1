"""What a trained run is given is data of its kind, or it is told what it should be."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distvae
from distvae.config import ImageData
from distvae.files.refusal import Refusal
from distvae.tasks.codes import encode
from distvae.train.inputs import InputFormat
from distvae.train.run import Run

POWERS = np.random.default_rng(0).exponential(size=(3, 257)).astype(np.float32)
PIXELS = np.random.default_rng(0).random((3, 36), np.float32)


def spoilt(x: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(x.size).reshape(x.shape) == 5, value, x)


SPEECH: dict[str, tuple[Any, str]] = {
    "missing": (spoilt(POWERS, np.nan), "x: holds NaN; finite values expected"),
    "infinite": (spoilt(POWERS, np.inf), "x: holds an infinite value"),
    "huge": (spoilt(POWERS.astype(np.float64), 1e300), "x: holds an infinite value"),
    "negative": (spoilt(POWERS, -0.5), "x: holds -0.5; at least 0 expected, as in training"),
    "a signal": (
        np.zeros(4096),
        "x: 4,096 values in a row, as of a signal; an array (power spectra, 257) expected",
    ),
    "too wide": (
        np.zeros((2, 513)),
        "x: rows of 513 values; an array (power spectra, 257) expected",
    ),
    "empty": (
        np.zeros((0, 257)),
        "x: no rows; an array (power spectra, 257) with one or more expected",
    ),
    "nothing": ([], "x: 0 values in a row"),
    "ragged": ([[1.0], [1.0, 2.0]], "x: rows of different lengths"),
    "complex": (POWERS.astype(complex), "x: holds complex128; real numbers expected"),
    "text": (np.full((2, 257), "a"), "x: holds <U1; real numbers expected"),
}
IMAGES: dict[str, tuple[Any, str]] = {
    "whole numbers": (
        (255 * PIXELS).astype(np.uint8),
        "x: holds 25.; at least 0 and at most 1 expected",
    ),
    "as images": (
        PIXELS.reshape(3, 6, 6),
        "x: 3 axes, (3, 6, 6); an array (images, 36) expected, such as x.reshape(",
    ),
    "one image": (
        PIXELS[0],
        "x: 36 values in a row; an array (images, 36) expected, such as x.reshape(1, -1)",
    ),
    "missing": (spoilt(PIXELS, np.nan), "x: holds NaN"),
}


def refused(call: Callable[[Any], object], given: Any, words: str) -> None:
    with pytest.raises(Refusal, match=re.escape(words).replace(r"25\.", r"25\d")) as refusal:
        call(given)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("name", SPEECH)
def test_what_is_no_power_spectrum_is_refused(speech_run: Run, name: str) -> None:
    refused(speech_run.encode, *SPEECH[name])


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image_is_refused(image_run: Run, name: str) -> None:
    refused(image_run.encode, *IMAGES[name])


def test_values_in_other_units_than_those_of_training_are_refused(
    speech_run: Run, bars_run: Run
) -> None:
    for run in (speech_run, bars_run):
        least, most = run.info["range"]
        assert least < most
        loudest = np.full((1, run.dims), 99 * most, np.float32)
        assert np.isfinite(run.encode(loudest)).all()
        refused(
            run.encode,
            300 * loudest / 99,
            "300 times the largest value of training; values in the same units",
        )


def test_a_run_from_before_knows_no_range(bars_run: Run) -> None:
    info = bars_run.info.copy()
    del info["range"]
    assert InputFormat.of_run(bars_run.config, bars_run.dims, info).largest == np.inf
    assert InputFormat.of_run(bars_run.config, bars_run.dims, bars_run.info).largest < 10


def test_codes_of_another_width_and_no_codes_are_refused(image_run: Run) -> None:
    refused(image_run.decode, np.zeros((2, 4)), "z: rows of 4 values; an array (codes, 5) expected")
    refused(
        image_run.decode,
        np.zeros((0, 5)),
        "z: no rows; an array (codes, 5) with one or more expected",
    )
    refused(
        image_run.decode,
        np.zeros(5),
        "z: 5 values in a row; an array (codes, 5) expected, such as z.reshape(1, -1)",
    )
    refused(image_run.decode, np.full((2, 5), np.nan), "z: holds NaN")


def test_arrays_tensors_and_lists_are_the_same_data(image_run: Run) -> None:
    codes = image_run.encode(PIXELS)
    for given in (
        torch.from_numpy(PIXELS),
        PIXELS.tolist(),
        PIXELS.astype(np.float64),
        np.asfortranarray(PIXELS),
    ):
        np.testing.assert_array_equal(image_run.encode(given), codes)
    binary = (PIXELS > 0.5).astype(np.uint8)
    np.testing.assert_array_equal(
        image_run.encode(binary), image_run.encode(binary.astype(np.float32))
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((0, 5)), "image: shape (0, 5), without any value"),
        (np.full((4, 4), "a"), "image: holds <U1; real numbers expected"),
        (np.zeros((4, 4), complex), "image: holds complex128; real numbers expected"),
        ([[1.0], [1.0, 2.0]], "image: rows of different lengths"),
    ],
)
def test_what_is_no_image_to_restore_is_refused(given: Any, words: str) -> None:
    refused(distvae.denoise, given, words)
    refused(distvae.inpaint, given, words)


def test_a_channel_axis_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refusal, match="channel_axis: 3 of an image of 3 axes"):
        distvae.denoise(np.zeros((4, 4, 3)), channel_axis=3)


def test_data_of_another_width_is_refused_by_its_name_and_leaves_no_file(
    image_run: Run, bars_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match="bars: data points of 4 values; 36 expected by "):
        encode(image_run, bars_run.config.data, tmp_path / "codes.parquet")
    np.savez(tmp_path / "other.npz", x=np.zeros((20, 6, 6), np.uint8))
    assert (
        encode(image_run, ImageData(path=str(tmp_path / "other.npz")), tmp_path / "codes.parquet")
        == 20
    )
    with pytest.raises(Refusal, match="there: holds 7; at least 0"):
        image_run.encode(7 + 0 * PIXELS, "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.parquet", "other.npz"]
