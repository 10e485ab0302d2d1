"""Grey TIFFs of floats, as microscopes and telescopes write them: restored in their own units."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import distvae
from distvae.config.recipes import parse_assignments
from distvae.data import signals
from distvae.data.windows import read_mask
from distvae.numerics.arrays import Floats
from distvae.tasks.scores import fidelity
from tests.called import Called
from tests.commands.test_restore import BRIEF, pixels, read


def save(name: str, values: Floats) -> None:
    Image.fromarray(values.astype(np.float32)).save(name)


@pytest.fixture(autouse=True)
def floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    """Values of a picture from -0.02 to 0.005, in `floats.tif` of the folder to run in."""
    monkeypatch.chdir(tmp_path)
    values = (pixels(channels=1)[..., 0] / 1e4 - 0.02).astype(np.float32)
    save("floats.tif", values)
    return values


@settings(max_examples=15)
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


def test_results_and_scores_are_in_the_units_of_the_picture(
    call: Called, floats: NDArray[np.float32]
) -> None:
    assert call("denoise", "floats.tif", "out.tif", "--quiet", *BRIEF)[0] == 0
    brief = parse_assignments(BRIEF)
    of_array = distvae.denoise(floats.astype(np.float64), settings=brief)
    np.testing.assert_array_equal(read("out.tif")[..., 0], of_array.astype(np.float32))
    np.testing.assert_array_equal(distvae.denoise("floats.tif", settings=brief), of_array)
    assert of_array.min() < -0.01
    clean, noise = pixels(channels=1), np.random.default_rng(1).standard_normal((20, 24, 1))
    own = signals.Signal(clean, bits=signals.FLOATS)
    scaled = fidelity(own.with_values(clean / 300 - 7), (clean + noise) / 300 - 7)
    assert fidelity(own, clean + noise) == pytest.approx(scaled)


@pytest.mark.slow
def test_noise_scores_and_figures_are_in_the_units_of_the_picture(
    call: Called, floats: NDArray[np.float32]
) -> None:
    line = "denoise floats.tif out.tif --add-noise 0.002 --figure f.png --json"
    code, out, _ = call(*line.split(), *BRIEF)
    assert code == 0
    last = json.loads(out.splitlines()[-1])
    error = read("out.tif")[..., 0] - floats
    assert last["psnr"] == pytest.approx(20 * np.log10(np.ptp(floats) / error.std()), abs=0.5)
    assert 0.0005 < last["sigma"] < 0.02
    with Image.open("f.png") as figure:
        drawn = np.asarray(figure.convert("L"))[60:-10]
    assert len(np.unique(drawn)) > 100  # not all black, as values below 1 of 255 would be


@pytest.mark.parametrize("words", [["--missing-value", "nan"], ["--mask", "mask.tif"]])
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
    result = read("out.tif")[..., 0]
    np.testing.assert_array_equal(result[~missing], floats[~missing])
    assert np.isfinite(result).all()
    assert (result[masked & ~gone] != floats[masked & ~gone]).all()
    if "nan" in words:
        assert call("inpaint", "holed.tif", "again.tif", *BRIEF)[0] == 0, "NaN needs no option"
        np.testing.assert_array_equal(read("again.tif")[..., 0], result)
    save("mask.tif", np.array([[0, 0.25, np.nan], [-1, 0, 3]]))
    np.testing.assert_array_equal(read_mask(Path("mask.tif"))[..., 0], [[0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("name", "command"),
    [("floats", "distvae denoise {} clean.tif"), ("holed", "distvae inpaint {} whole.tif")],
)
def test_data_check_names_the_command_that_restores_the_file(
    call: Called, floats: NDArray[np.float32], name: str, command: str
) -> None:
    save("holed.tif", np.where(floats > floats.mean(), np.nan, floats))
    code, out, _ = call("data", "check", f"{name}.tif")
    assert code == 0
    assert re.search(r"bits: +32\n", out)
    assert (re.search(r"missing: +(\d+)\n", out) is not None) == (name == "holed")
    expected = command.format(Path(f"{name}.tif").absolute())
    assert out.splitlines()[-1].split(maxsplit=1)[1] == expected


REFUSED = """
denoise floats.tif out.png | '.png' is no kind of file for this result; .tif or .tiff
denoise holed.tif out.tif | holed.tif: holds missing values (NaN); 'distvae inpaint' fills
denoise floats.tif out.tif --clean holed.tif | holed.tif: holds missing values (NaN); a ref
denoise floats.tif out.tif --clean grey.png | grey.png: holds values from 0 to 255; the units of wha
denoise grey.png out.png --clean floats.tif | floats.tif: holds floats; the units of what is restore
inpaint holed.tif out.tif --drop 0.3 | holed.tif: holds missing values (NaN); a reference
inpaint floats.tif out.tif | exactly one of them
denoise flat.tif out.tif | flat.tif: floats that are all alike, all missing or infinite
denoise vast.tif out.tif | vast.tif: floats that are all alike, all missing or infinite
denoise double.tif out.tif | double.tif: a TIFF of a kind that is not read here, or its
denoise whole.tif out.tif | whole.tif: whole numbers of 32 bits, or signed ones; 8 or 16
denoise negative.tif out.tif | negative.tif: floats of which zero is white
train natural-linear data.path=holed.tif data.window=[4,4] data.sizes=[20,5,5] | holed.tif: holds mi
"""


def test_what_cannot_be_restored_is_refused(call: Called, floats: NDArray[np.float32]) -> None:
    save("holed.tif", np.where(floats > floats.mean(), np.nan, floats))
    save("flat.tif", np.full((20, 24), 0.5))
    save("vast.tif", np.where(floats > floats.mean(), np.inf, floats))
    Image.fromarray((1e6 * floats).astype(np.int32)).save("whole.tif")
    Image.fromarray(pixels(channels=1)[..., 0].astype(np.uint8)).save("grey.png")
    content = Path("floats.tif").read_bytes()
    for name, tag, ours, other in (("double", 258, 32, 64), ("negative", 262, 1, 0)):
        old, new = (struct.pack("<HHII", tag, 3, 1, value) for value in (ours, other))
        assert content.count(old) == 1
        Path(f"{name}.tif").write_bytes(content.replace(old, new))
    for line in REFUSED.strip().splitlines():
        words, _, said = line.partition(" | ")
        command = words.split()
        brief = BRIEF if command[0] != "train" else []
        code, _, err = call(*command[:3], *brief, *command[3:])
        assert (code, len(err.splitlines())) == (2, 1), f"{words}: {err}"
        assert said in err, words
