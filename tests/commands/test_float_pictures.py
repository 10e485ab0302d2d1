"""Grey TIFFs of floats, as microscopes and telescopes write them: restored in their own units."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import distvae
from distvae.config.recipes import parse_assignments
from distvae.data import signals
from distvae.data.windows import read_mask
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import Floats
from distvae.tasks.scores import fidelity
from tests.called import Called
from tests.commands.test_restore import BRIEF, pixels

SETTINGS: dict[str, Plain] = parse_assignments(BRIEF)


def save(name: str, values: Floats) -> None:
    Image.fromarray(values.astype(np.float32)).save(name)


@pytest.fixture(autouse=True)
def floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    """Values of a picture from -0.02 to 0.005, in `floats.tif` of the folder to run in."""
    monkeypatch.chdir(tmp_path)
    values = (pixels(channels=1)[..., 0] / 1e4 - 0.02).astype(np.float32)
    save("floats.tif", values)
    return values


@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=6, max_size=6))
def test_values_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, row: list[float]
) -> None:
    path = tmp_path_factory.mktemp("floats") / "given.tif"
    expected = np.array([row, [0, 1, 2, 3, 4, np.nan]], np.float32)
    Image.fromarray(expected).save(path)
    signals.write(path.with_name("again.tif"), signals.read_signal(path))
    with Image.open(path.with_name("again.tif")) as again:
        assert again.mode == "F"
        np.testing.assert_array_equal(np.asarray(again), expected)


def test_the_result_is_that_of_the_array_in_its_units(
    call: Called, floats: NDArray[np.float32]
) -> None:
    assert call("denoise", "floats.tif", "out.tif", "--quiet", *BRIEF)[0] == 0
    result = signals.read_signal(Path("out.tif")).values[..., 0]
    of_array = distvae.denoise(floats.astype(np.float64), settings=SETTINGS)
    np.testing.assert_array_equal(result, of_array.astype(np.float32))
    np.testing.assert_array_equal(distvae.denoise("floats.tif", settings=SETTINGS), of_array)
    assert result.min() < -0.01


@pytest.mark.slow
def test_noise_and_scores_are_in_units_of_the_picture(
    call: Called, floats: NDArray[np.float32]
) -> None:
    code, out, _ = call(
        "denoise",
        "floats.tif",
        "out.tif",
        "--add-noise",
        "0.002",
        "--figure",
        "f.png",
        "--json",
        *BRIEF,
    )
    assert code == 0
    last = json.loads(out.splitlines()[-1])
    error = signals.read_signal(Path("out.tif")).values[..., 0] - floats
    assert last["psnr"] == pytest.approx(20 * np.log10(np.ptp(floats) / error.std()), abs=0.5)
    assert 0.0005 < last["sigma"] < 0.02
    with Image.open("f.png") as figure:
        drawn = np.asarray(figure.convert("L"))[60:-10]
    assert len(np.unique(drawn)) > 100  # not all black, as values below 1 of 255 would be


def test_scores_do_not_depend_on_units() -> None:
    clean, noise = pixels(channels=1), np.random.default_rng(1).standard_normal((20, 24, 1))
    own = signals.Signal(clean, bits=signals.FLOATS)
    first = fidelity(own, clean + noise)
    scaled = fidelity(own.with_values(clean / 300 - 7), (clean + noise) / 300 - 7)
    assert first == pytest.approx(scaled)


@pytest.mark.parametrize("words", [[], ["--missing-value", "nan"], ["--mask", "mask.tif"]])
def test_what_is_nan_is_filled_in(
    call: Called, floats: NDArray[np.float32], words: list[str]
) -> None:
    gone = np.random.default_rng(0).random(floats.shape) < 0.3
    masked = np.zeros_like(gone)
    masked[3] = "--mask" in words
    save("mask.tif", np.where(np.arange(20)[:, None] == 3, 0.5, 0) * np.ones(24))
    save("holed.tif", np.where(gone, np.nan, floats))
    code, _, err = call("inpaint", "holed.tif", "out.tif", *words, *BRIEF)
    assert code == 0, err
    missing = gone | masked
    assert f"holed.tif with {missing.mean():.0%} missing" in err
    result = signals.read_signal(Path("out.tif")).values[..., 0]
    np.testing.assert_array_equal(result[~missing], floats[~missing])
    assert np.isfinite(result).all()
    assert (result[masked & ~gone] != floats[masked & ~gone]).all()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("floats", "distvae denoise {} clean.tif"),
        ("holed", "distvae inpaint {} whole.tif"),
    ],
)
def test_data_check_names_the_command_that_restores_the_file(
    call: Called, floats: NDArray[np.float32], name: str, command: str
) -> None:
    save("holed.tif", np.where(floats > floats.mean(), np.nan, floats))
    code, out, _ = call("data", "check", f"{name}.tif")
    assert code == 0
    assert re.search(r"bits: +32\n", out)
    assert (re.search(r"missing: +(\d+)\n", out) is not None) == (name == "holed")
    assert out.splitlines()[-1].split(maxsplit=1)[1] == command.format(
        Path(f"{name}.tif").absolute()
    )


def test_a_mask_of_floats_marks_what_is_above_zero() -> None:
    save("mask.tif", np.array([[0, 0.25, np.nan], [-1, 0, 3]]))
    np.testing.assert_array_equal(read_mask(Path("mask.tif"))[..., 0], [[0, 1, 0], [0, 0, 1]])


REFUSED = {
    "denoise floats.tif out.png": "'.png' is no kind of file for this result; .tif or .tiff",
    "denoise holed.tif out.tif": "holed.tif: holds missing values (NaN); 'distvae inpaint' fills",
    "denoise floats.tif out.tif --clean holed.tif": "holed.tif: holds missing values (NaN); a ref",
    "denoise floats.tif out.tif --clean grey.png": (
        "grey.png: holds values from 0 to 255; the units of what is restored expected"
    ),
    "denoise grey.png out.png --clean floats.tif": (
        "floats.tif: holds floats; the units of what is restored expected"
    ),
    "inpaint holed.tif out.tif --drop 0.3": "holed.tif: holds missing values (NaN); a reference",
    "inpaint floats.tif out.tif": "exactly one of them",
    "denoise flat.tif out.tif": "flat.tif: floats that are all alike, all missing or infinite",
    "denoise none.tif out.tif": "none.tif: floats that are all alike, all missing or infinite",
    "denoise vast.tif out.tif": "vast.tif: floats that are all alike, all missing or infinite",
    "denoise double.tif out.tif": "double.tif: a TIFF of a kind that is not read here, or its",
    "denoise whole.tif out.tif": "whole.tif: whole numbers of 32 bits, or signed ones; 8 or 16",
    "train natural-linear data.path=holed.tif data.window=[4,4] data.sizes=[20,5,5]": (
        "holed.tif: holds missing values (NaN); a picture"
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_restored_is_refused(
    call: Called, floats: NDArray[np.float32], words: str
) -> None:
    save("holed.tif", np.where(floats > floats.mean(), np.nan, floats))
    save("flat.tif", np.full((20, 24), 0.5))
    save("none.tif", np.full((20, 24), np.nan))
    save("vast.tif", np.where(floats > floats.mean(), np.inf, floats))
    Image.fromarray((1e6 * floats).astype(np.int32)).save("whole.tif")
    Image.fromarray(pixels(channels=1)[..., 0].astype(np.uint8)).save("grey.png")
    of_32_bits, of_64_bits = (struct.pack("<HHII", 258, 3, 1, bits) for bits in (32, 64))
    content = Path("floats.tif").read_bytes()
    assert content.count(of_32_bits) == 1
    Path("double.tif").write_bytes(content.replace(of_32_bits, of_64_bits))
    command = words.split()
    brief = BRIEF if command[0] != "train" else []
    code, _, err = call(*command[:3], *brief, *command[3:])
    assert code == 2
    assert REFUSED[words] in err
    assert len(err.splitlines()) == 1


def test_floats_of_which_zero_is_white_are_refused() -> None:
    zero_is_black, zero_is_white = (struct.pack("<HHII", 262, 3, 1, value) for value in (1, 0))
    content = Path("floats.tif").read_bytes()
    assert content.count(zero_is_black) == 1
    Path("negative.tif").write_bytes(content.replace(zero_is_black, zero_is_white))
    with pytest.raises(Refusal, match=r"negative.tif: floats of which zero is white"):
        signals.read_signal(Path("negative.tif"))
