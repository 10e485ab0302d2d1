"""Inputs and outputs of `denoise` and `inpaint` by groups of windows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distvae
from tests.called import Called
from tests.processes import started


def pixels(seed: int = 0, side: int = 24) -> np.ndarray:
    x = np.mgrid[:side, :side][1]
    noise = 15 * np.random.default_rng(seed).standard_normal((side, side))
    return (np.where((x // 6) % 2, 180.0, 60.0) + noise).clip(0, 255).astype(np.uint8)


def values(name: str, page: int = 0) -> np.ndarray:
    with Image.open(name) as image:
        image.seek(page)
        return np.asarray(image)


def save_stack(name: str, pages: list[np.ndarray]) -> None:
    first, *others = map(Image.fromarray, pages)
    first.save(name, save_all=True, append_images=others)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder with a folder of pictures."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for number in range(3):
        Image.fromarray(pixels(number)).save(f"in/{number}.png")


def test_a_result_has_a_name_and_a_kind_where_none_is_given(call: Called) -> None:
    assert call("denoise", "in/0.png", "--sigma", "15")[0] == 0
    assert values("in/0-denoised.png").shape == (24, 24)
    code, _, err = call("denoise", "in/0.png", "--sigma", "15")
    assert (code, "in/0-denoised.png: exists; another name or --force" in err) == (2, True)
    code, _, err = call("denoise", "in/1.png", "train.sigma=15")
    assert code == 0, err
    assert "in/1-denoised.png: written, white noise of 15 removed" in err
    assert call("inpaint", "in/0.png", "--missing-value", "255", "--drop", "0")[0] == 2
    assert call("inpaint", "in/0.png", "--drop", "0.2")[0] == 0
    assert Path("in/0-filled.png").is_file()
    Image.fromarray(pixels()).save("grey.ppm")
    assert call("denoise", "grey.ppm", "--sigma", "15")[0] == 0
    assert Path("grey-denoised.png").is_file()
    Image.fromarray(np.dstack([pixels(n) for n in range(4)])).save("clear.png")
    code, _, err = call("denoise", "clear.png", "out.jpg", "--sigma", "15")
    assert code == 0
    assert "; without its transparency, which .jpg does not hold" in err


def test_a_folder_equals_its_files_alone_and_goes_on_where_it_was_stopped(call: Called) -> None:
    Path("in/broken.png").write_bytes(b"no picture")
    Path("in/notes.txt").write_text("no picture")
    Path("secret.png").write_bytes(Path("in/0.png").read_bytes())
    Path("in/link.png").symlink_to("../secret.png")
    code, _, err = call("denoise", "in", "--sigma", "15")
    assert code == 1
    assert "1 of 4: 0.png: by groups of similar windows" in err
    assert "distvae: in/broken.png: not a picture" in err
    assert {each.name for each in Path("in-denoised").iterdir()} == {"0.png", "1.png", "2.png"}
    assert call("denoise", "in/1.png", "alone.png", "--sigma", "15")[0] == 0
    assert Path("alone.png").read_bytes() == Path("in-denoised/1.png").read_bytes()
    Path("in/broken.png").unlink()
    Path("in-denoised/1.png").unlink()
    before = Path("in-denoised/0.png").stat().st_mtime_ns
    code, _, err = call("denoise", "in", "--sigma", "15")
    assert code == 0
    assert "in-denoised: 2 of 3 results are there already; --force replaces them" in err
    assert Path("alone.png").read_bytes() == Path("in-denoised/1.png").read_bytes()
    assert Path("in-denoised/0.png").stat().st_mtime_ns == before
    Image.fromarray((np.arange(24) % 5 == 0) * np.full((24, 1), 255, np.uint8)).save("mask.png")
    assert call("inpaint", "in", "new/out", "--mask", "mask.png", "--quiet")[0] == 0
    kept = np.arange(24) % 5 != 0
    for number in range(3):
        found = values(f"new/out/{number}.png")
        assert np.array_equal(found[:, kept], pixels(number)[:, kept])


REFUSED = """
denoise in in | in: this folder is read; another name expected
denoise none | none: holds no pictures; .png, .tif
denoise in --clean in/0.png | --clean: for one picture, but in is a folder; omit it
denoise broken | a.png: not a picture
denoise stack.tif --preset fast | holds 2 pictures; one expected
denoise stack.tif --clean in/0.png | --clean: for one picture, but stack.tif is a stack
denoise stack.tif --add-noise 5 | data.noise: for one picture, but stack.tif is a
denoise stack.tif stack.tif --force | stack.tif: this file is read
denoise stack.tif out.png | '.png' is no kind of file for this result; .tif or .tiff
inpaint stack.tif --missing-value 300 | nothing is missing
denoise in --std std.tif | --std: for a picture or a stack, but in is a folder; omit
denoise stack.tif out.tif --std out.tif | out.tif: this file is read
denoise stack.tif --std stack.tif --force | stack.tif: this file is read
denoise stack.tif --std std.png | '.png' is no kind of file for this result; .tif or
denoise dark.tif --counts | dark.tif: holds -1; counts, 0 or more, expected
denoise holed.tif | holed.tif: holds missing values (NaN); 'distvae inpaint' fills
"""


def test_what_cannot_be_restored_is_refused(call: Called) -> None:
    Path("none").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no picture")
    save_stack("stack.tif", [pixels(number) for number in range(2)])
    floats = pixels().astype(np.float32)
    for name, value in {"dark.tif": -1, "holed.tif": np.nan}.items():
        save_stack(name, [floats, np.where(np.eye(24) > 0, np.float32(value), floats)])
    for line in REFUSED.strip().splitlines():
        words, _, said = line.partition(" | ")
        code, _, err = call(*words.split())
        assert (code, said in err) == (2, True), f"{words}: {err}"


@pytest.mark.slow
def test_a_stack_and_its_deviations_are_those_of_its_pictures(call: Called) -> None:
    colours = [np.dstack([pixels(3 * n + c) for c in range(3)]) for n in range(2)]
    save_stack("stack.tif", colours)
    options = ["--sigma", "15", "--across", "0"]
    code, _, err = call("denoise", "stack.tif", "--std", "std.tif", *options)
    assert code == 0, err
    assert "stack-denoised.tif: 2 pictures written, white noise of 15, 15, 15 removed" in err
    expected = []
    for number, picture in enumerate(colours):
        Image.fromarray(picture).save("one.png")
        restored, std = distvae.denoise_with_std("one.png", sigma=15)
        assert np.abs(values("stack-denoised.tif", number) - restored.clip(0, 255)).max() <= 0.5
        assert call("denoise", "one.png", "--force", "--std", "one.tif", *options)[0] == 0
        assert np.array_equal(values("stack-denoised.tif", number), values("one-denoised.png"))
        assert np.array_equal(values("std.tif", number), values("one.tif"))
        assert np.allclose(values("one.tif"), np.sqrt(np.square(std).mean(-1)))
        expected.append(np.square(std).mean())
    psnr = 10 * np.log10(255**2 / np.mean(expected))
    assert f"PSNR of {psnr:.1f} dB expected" in err
    save_stack("grey.tif", [pixels(number) for number in range(3)])
    assert call("denoise", "grey.tif")[0] == 0
    assert call("inpaint", "grey.tif", "filled.tif", "--missing-value", "60")[0] == 0
    for number in range(3):
        filled, given = values("filled.tif", number), pixels(number)
        assert np.array_equal(filled[given != 60], given[given != 60])


HEARING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from distvae.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "answer"),
    [
        ("large.png: by groups", "distvae: interrupted"),
        ("distvae: compiling loops", "distvae: stopped; large-denoised.png was not written"),
    ],
)
def test_ctrl_c_answers_while_libraries_load_and_loops_compile(moment: str, answer: str) -> None:
    Image.fromarray(pixels(0, 700)).save("large.png")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(Path("cache").absolute())}
    command = [sys.executable, "-c", HEARING, "denoise", "large.png"]
    with started(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        while moment not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert answer in err
    assert "Traceback" not in err
    assert {path.name for path in Path.cwd().iterdir()} - {"cache"} == {"in", "large.png"}
