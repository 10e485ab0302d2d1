"""`distvae denoise` and `distvae inpaint` as a user types them, with a model that is trained."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from distvae.cli.restore import Task, write_result
from distvae.cli.restore_options import Place, RestoreOptions
from distvae.config.recipes import parse_assignments
from distvae.data import signals
from distvae.data.windows import masked_by, read_mask
from distvae.files.paths import partial_name
from distvae.numerics.arrays import Floats
from distvae.tasks.restoration import Restoration, RunDestination
from distvae.train.loop import Interrupted
from distvae.train.run import Run
from tests.called import Called
from tests.processes import started

BRIEF = [
    "data.window=[4,4]",
    "model.latent=8",
    "model.hidden=[16]",
    "estep.states=16",
    "estep.children=4",
    "train.batch=32",
    "train.epochs=2",
    "train.threads=1",
    "train.device=cpu",
]
SOUND = ["data.window=[16]", *BRIEF[1:], "train.rate=0.01"]


def pixels(height: int = 20, width: int = 24, channels: int = 3, seed: int = 0) -> np.ndarray:
    x = np.mgrid[:height, :width, :channels][1]
    noise = 10 * np.random.default_rng(seed).standard_normal((height, width, channels))
    return (np.where((x // 6) % 2, 180.0, 60.0) + noise).clip(0, 255)


def sound() -> np.ndarray:
    return np.asarray(pixels(1, 400, 2)[0] / 255 - 0.5)


def save(name: str, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8).squeeze()).save(name)


def read(name: str) -> Floats:
    return signals.read_signal(Path(name)).values


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder with a grey picture, a colour picture and a sound."""
    monkeypatch.chdir(tmp_path)
    save("grey.png", pixels(channels=1))
    save("colour.png", pixels())
    soundfile.write("stereo.wav", sound(), 22050)


def test_a_picture_is_denoised_and_its_run_is_kept_if_asked(call: Called) -> None:
    words = ("denoise", "grey.png", "out.png", *BRIEF, "--run", "kept")
    code, _, err = call(*words)
    assert code == 0
    assert "grey.png: 357 windows of 16 values, 0.1 MB, 2 epochs\n" in err
    assert err.count("nats/window") == 2
    assert "out.png: written, restored after epoch 2" in err
    assert "PSNR" not in err
    assert read("out.png").shape == (20, 24, 1)
    assert Run.open(Path("kept")).config.data.path == str(Path("grey.png").absolute())
    code, _, err = call(*words[:2], "other.png", *words[3:])
    assert (code, err) == (
        2,
        "distvae: kept: exists; --resume continues it, --force replaces it and deletes all files in"
        " it; or name another folder\n",
    )
    code, _, err = call(*words[:2], "bad.png", *BRIEF, "train.rate=1e30")
    assert (code, "no longer finite" in err, Path("bad.png").exists()) == (1, True, False)


def test_a_benchmark_makes_noise_and_reports_how_near_it_comes(call: Called) -> None:
    line = "denoise colour.png out.png --add-noise 25 --json --figure f.png"
    code, out, _ = call(*line.split(), *BRIEF)
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[-1].keys() >= {"bound", "sigma", "seconds", "active", "psnr"}
    with Image.open("f.png") as figure:
        assert figure.width > 3 * 300


@pytest.mark.slow
def test_transparency_depth_and_clipping(call: Called) -> None:
    save("clear.png", np.concatenate([pixels(), 255 * np.ones((20, 24, 1))], -1))
    assert call("denoise", "clear.png", "out.tif", "--quiet", *BRIEF)[0] == 0
    np.testing.assert_array_equal(signals.read_signal(Path("out.tif")).alpha, 255)
    signals.write(Path("deep.png"), signals.Signal(pixels(), bits=16))
    assert call("denoise", "deep.png", "deep-out.png", "--quiet", *BRIEF)[0] == 0
    assert signals.read_signal(Path("deep-out.png")).bits == 16
    soundfile.write("loud.wav", 10 * sound(), 22050, subtype="FLOAT")
    _, _, err = call("denoise", "loud.wav", "held.wav", *SOUND)
    assert "clipped" not in err
    assert np.abs(read("held.wav")).max() > 1
    _, _, err = call("denoise", "loud.wav", "cut.flac", *SOUND)
    assert "samples beyond full scale were clipped; a .wav of floats would keep them" in err


def test_a_sound_is_cut_and_resampled_and_so_is_the_clean_one(call: Called) -> None:
    settings = ["data.rate=11025", "data.excerpt=[0.01, 0.005]", *SOUND]
    line = "denoise stereo.wav out.flac --snr 6 --json"
    code, out, _ = call(*line.split(), *settings)
    assert code == 0
    scores = json.loads(out.splitlines()[-1])
    assert scores["snr"] - scores["snr_gain"] == pytest.approx(6, abs=1.5)
    restored = signals.read_signal(Path("out.flac"))
    assert (restored.values.shape, restored.rate) == ((55, 2), 11025)
    command = ["denoise", "stereo.wav", "out.flac", "--clean", "stereo.wav", "--json", "--force"]
    code, out, _ = call(*command, *settings)
    assert code == 0
    assert "snr" in json.loads(out.splitlines()[-1])
    soundfile.write("cut.wav", read("out.flac"), 11025, subtype="FLOAT")
    command[4] = "cut.wav"
    code, again, _ = call(*command, *settings)
    assert code == 0
    assert json.loads(again.splitlines()[-1])["snr"] > 60  # the same restoration, but for rounding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("denoise grey.png {} --add-noise 20", "data.noise=20"),
        ("inpaint grey.png {} --drop 0.3", "data.drop=0.3"),
    ],
)
def test_damage_by_an_option_or_by_a_key_has_the_seed(call: Called, damage: str, key: str) -> None:
    by_option = damage.split()
    by_key = [*by_option[:3], key]
    runs = {"a.png": (by_option, "3"), "b.png": (by_key, "3"), "c.png": (by_option, "4")}
    for name, (command, seed) in runs.items():
        words = [word.format(name) for word in command]
        assert call(*words, "--seed", seed, "--quiet", *BRIEF)[0] == 0
    first, keyed, other = (Path(name).read_bytes() for name in runs)
    assert first == keyed != other


@pytest.mark.parametrize(
    ("source", "level", "preset"),
    [("grey.png", "20", "paper"), ("stereo.wav", "0.1", "balanced")],
)
def test_a_level_that_is_told_replaces_the_estimate_and_is_kept(
    call: Called, source: str, level: str, preset: str
) -> None:
    """In the units of the file, as `--add-noise`; recorded, so that resuming obeys it."""
    settings = SOUND if source.endswith("wav") else BRIEF
    out = f"out{Path(source).suffix}"
    words = ["denoise", source, out, "--preset", preset, "--run", "kept", *settings]
    code, _, err = call(*words, "--sigma", level)
    assert code == 0, err
    assert f"{source}: white noise of {level}; training ends early if sigma falls below it" in err
    run = Run.open(Path("kept"))
    assert run.config.train.sigma == float(level)
    restored = Restoration(run.config, read(source))
    assert run.info["noise"] == pytest.approx(float(level) / restored.patches.scale)
    code, _, err = call(*words, "--resume", "--sigma", "3e-2")
    assert (code, "train.sigma" in err) == (2, True)


@pytest.mark.parametrize(("kind", "name"), [("png", "mask.jpg"), ("jpeg", "mask.png")])
def test_a_mask_marks_what_is_bright_and_not_what_is_transparent(kind: str, name: str) -> None:
    """A JPEG marks pixels brighter than half, any other picture pixels that are not black. The
    suffix of the name does not matter.
    """
    drawn = np.zeros((32, 32, 3), np.uint8)
    drawn[10:14, 10:14] = 255 if kind == "jpeg" else 90
    if kind == "png":
        drawn = np.concatenate([np.full_like(drawn, 90), drawn[..., :1]], -1)
    Image.fromarray(drawn).save(name, kind)
    missing = masked_by(Path(name))(signals.Signal(np.zeros((32, 32, 1))))
    expected = np.zeros((32, 32, 1), bool)
    expected[10:14, 10:14] = True
    np.testing.assert_array_equal(missing, expected)
    np.testing.assert_array_equal(read_mask(Path(name)), expected)


@pytest.mark.parametrize("way", ["--mask mask.png", "--missing-value 0", "--drop 0.3"])
def test_missing_pixels_are_filled_in_and_observed_ones_kept(call: Called, way: str) -> None:
    gone = np.random.default_rng(0).random((20, 24)) < 0.3
    save("holed.png", np.where(gone[..., None], 0, pixels()))
    save("mask.png", 255 * gone)
    source = "colour.png" if "drop" in way else "holed.png"
    code, _, err = call("inpaint", source, "out.png", *way.split(), *BRIEF)
    assert code == 0
    result, given = read("out.png"), read(source)
    if "drop" in way:
        assert "PSNR" in err
        assert 0.2 < (result != given).any(-1).mean() <= 0.4
    else:
        np.testing.assert_array_equal(result[~gone], given[~gone])
        assert (result[gone] != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--mask gaps.txt", "--drop 0.3"])
def test_missing_samples_are_filled_in_and_observed_ones_kept(call: Called, way: str) -> None:
    rate, gone = 8000, np.zeros(400, bool)
    gone[80:88] = gone[200:260] = True
    soundfile.write("holed.wav", np.where(gone[:, None], 0, sound()), rate)
    Path("gaps.txt").write_text(f"{80 / rate}\t{88 / rate}\tclick\n{200 / rate} {260 / rate}\n")
    source = "stereo.wav" if "drop" in way else "holed.wav"
    words = ["inpaint", source, "out.wav", *way.split(), "--figure", "f.png", *SOUND]
    code, _, err = call(*words)
    assert code == 0
    assert Path("f.png").stat().st_size > 1000
    result, given = read("out.wav"), read(source)
    if "drop" in way:
        assert re.search(r"SNR -?\d+\.\d+  SNR_GAIN -?\d", err.upper())
        assert 0.2 < (result != given).any(-1).mean() <= 0.4
    else:
        np.testing.assert_array_equal(result[~gone], given[~gone])
        assert (result[gone] != 0).any(-1).mean() > 0.9
        assert "the model can only guess 30 samples, too far from any observed one" in err


REFUSED = """
denoise absent.png out.png | absent.png
denoise cut.png out.png | cut.png
denoise flat.png out.png | .png: all values are 7
train picture-fast data.path=flat.png | flat.png: all values are 7
denoise silent.wav out.wav data.window=[16] | all values are 0
denoise silent.wav out.wav data.window=[16] --add-noise 0.1 | silent, so that nothing is close to it
denoise stereo.wav out.wav data.window=[16] --clean slower.wav | 8,000 Hz; 22,050 Hz expected
denoise small.png out.png | larger than the data's 3 x 24
denoise deep.pgm out.pgm | '.pgm' is no kind of file for this result; .png or .tif or
denoise lossy.ogg out.ogg | '.ogg' is no kind of file for this result; .wav or .flac expected
denoise grey.png nowhere/out.png | existing, writable folder
denoise grey.png colour.png | --force
denoise grey.png out.png --figure out.txt | '.txt'
denoise grey.png grey.png --force | grey.png: this file is read, and by --resume again
denoise grey.png out.png --clean small.png --figure small.png --force | this file is read, and by
inpaint grey.png mask-some.png --mask mask-some.png --force | mask-some.png: this file is
denoise grey.png out.png --figure out.png | --figure: out.png: this is the file of the result
denoise grey.png out.png --run grey.png/run | grey.png/run: cannot write into
denoise grey.png out.png --clean colour.png | 20 x 24 x 1 expected
denoise grey.png out.png --add-noise 5 --clean grey.png | omit --clean
denoise grey.png out.png --stride 5 | leaves gaps
denoise grey.png out.png estep.states=256 model.latent=4000000000000 | GB
inpaint grey.png out.png | exactly one of them
inpaint grey.png out.png --drop 0 | --drop: 0 drops nothing; a share above 0 expected
inpaint grey.png out.png --drop 1 | --drop: 1, and everything is missing
inpaint grey.png out.png --mask mask-small.png | 8 x 8 pixels; 20 x 24 expected
inpaint grey.png out.png --mask mask-none.png | mask-none.png: nothing is missing
inpaint grey.png out.png --mask mask-dim.webp | a JPEG or WebP by one brighter than half
inpaint grey.png out.png --mask none.txt | none.txt: not a picture
inpaint grey.png out.png --missing-value 256 | --missing-value: 256, and nothing is missing
inpaint stereo.wav out.wav --drop 0.5 | [samples] expected for this data
inpaint stereo.wav out.wav data.window=[16] --mask none.txt | nothing is missing; gaps with some of
inpaint stereo.wav out.wav data.window=[16] --mask late.txt | line 2: a gap from 0.5 s on in a sound
inpaint stereo.wav out.wav data.window=[16] --mask text.txt | line 1: 'text'; the start and the end
inpaint stereo.wav out.wav data.window=[16] --mask grey.png | grey.png: cannot be read (
inpaint stereo.wav out.wav data.window=[16] --mask none.txt data.rate=8000 | data.rate: 8000, but
inpaint grey.png out.png --drop 0.5 data.noise=5 | data.drop: 0.5 with data.noise = 5; one of the
inpaint grey.png out.png --mask mask-none.png data.noise=5 | data.noise: 5, but no noise is added
denoise stereo.wav out.wav data.window=[16] --add-noise 0.1 --snr 5 | one of the two expected
denoise grey.png out.png --snr 5 | data.snr: 5.0 for a picture, but it is for sounds
denoise grey.png out.png data.drop=0.5 | data.drop: 0.5, but nothing is dropped here
denoise grey.png out.png --add-noise 25 data.noise=30 | --add-noise: 25.0, and data.noise=30; one of
denoise grey.png out.png --sigma 0 | train.sigma: 0.0 is out of range; above 0 expected
denoise stereo.wav out.wav data.window=[16] --sigma 25 | but all values of stereo.wav vary by 0.23
denoise grey.png out.png --preset fast --recipe house-25 | --preset, --recipe: both
denoise grey.png out.png --counts --sigma 5 | --counts, --sigma: the noise of counts has no single
denoise grey.png out.png --counts --add-noise 5 | --counts: noise that is added is not that of
denoise grey.png out.png --counts --model tvae | --counts: for a picture and --model groups
denoise grey.png out.png --model groups | --model groups: data.window is for models that are trained
"""


def test_bad_input_is_refused_before_training_with_exit_code_two(call: Called) -> None:
    save("flat.png", np.full((20, 24), 7))
    save("small.png", pixels(3, 24, 1))
    save("mask-small.png", pixels(8, 8, 1))
    save("mask-none.png", np.zeros((20, 24)))
    Image.fromarray(np.full((20, 24), 90, np.uint8)).save("mask-dim.webp", lossless=True)
    save("mask-some.png", np.where(np.arange(24) % 5, 0, 255) * np.ones((20, 1)))
    Path("cut.png").write_bytes(Path("colour.png").read_bytes()[:700])
    Path("text.txt").write_text("text")
    Path("none.txt").write_text("# no gap\n")
    Path("late.txt").write_text("0 0.001\n0.5 0.6 beyond the end\n")
    Path("deep.pgm").write_bytes(b"P5\n24 20\n65535\n" + bytes(range(240)) * 4)
    soundfile.write("silent.wav", np.zeros(400), 16000)
    soundfile.write("slower.wav", sound(), 8000)
    soundfile.write("lossy.ogg", sound(), 22050)
    before = sorted(Path.cwd().iterdir())
    for line in REFUSED.strip().splitlines():
        words, _, said = line.partition(" | ")
        command = words.split()
        code, out, err = call(*command[:3], *BRIEF, *command[3:])
        assert (code, out, len(err.splitlines())) == (2, "", 1), f"{words}: {err}"
        assert said in err, words
        assert sorted(Path.cwd().iterdir()) == before, words


@pytest.mark.slow
def test_an_interrupted_restoration_is_written_and_resumed() -> None:
    epochs = 60
    settings = [*BRIEF, f"train.epochs={epochs}", "train.stop_at_noise=false"]
    line = "denoise grey.png out.png --add-noise 20 --json"
    command = [sys.executable, "-c", "from distvae.cli import main; main()"]
    command += [*line.split(), *settings]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        for _ in range(3):
            running.stdout.readline()
        os.kill(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert re.search(rb"written, restored (after|in) epoch \d", err)
    first = Path("out.png").read_bytes()
    again = subprocess.run(command, capture_output=True, check=False)
    assert (again.returncode, b"out.png" in again.stderr) == (2, True)
    done = subprocess.run([*command, "--resume"], capture_output=True, check=True)
    stages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [stage["epoch"] for stage in stages] == list(range(epochs - len(stages) + 1, epochs + 1))
    assert 3 <= epochs - len(stages) < epochs
    assert Path("out.png").read_bytes() != first
    assert not Path("out.png.run").exists()


def test_stopped_in_its_first_epoch_a_restoration_writes_what_it_has(call: Called) -> None:
    given = signals.read_signal(Path("grey.png"))
    overrides = parse_assignments([*BRIEF, "estep.block=32"])
    place = Place(Path("grey.png"), "denoised", Path("out.png"))
    task = Task(place, "", given, None, RestoreOptions(), overrides)
    asked = iter([False, False, True])
    restoration = Restoration(task.config, given.values, task.name, RunDestination(task.folder))
    assert write_result(task, restoration) == "nothing is restored yet; out.png was not written"
    with pytest.raises(Interrupted):
        list(restoration.run(lambda: next(asked)))
    assert "out.png: written, restored in epoch 1" in write_result(task, restoration)
    assert read("out.png").shape == given.values.shape
    resuming = RunDestination(task.folder, resume=True)
    again = Restoration(task.config, given.values, task.name, resuming)
    assert [stage.epoch for stage in again.run()] == [1, 2]
    shutil.rmtree(task.folder)
    Path(partial_name("out.png")).write_bytes(b"of a process that was killed")
    words = ("denoise", "grey.png", "out.png", "--resume", *BRIEF)
    code, _, err = call(*words)
    assert code == 0
    assert "out.png.run: contains no run to resume; starting a new one" in err
    assert {path.name for path in Path.cwd().glob("*out*")} == {"out.png"}
