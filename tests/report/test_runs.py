"""The page of a run: trained, judged, or restored; and what to type to have it again."""

import base64
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from distvae import report
from distvae.cli.restore import denoise_file
from distvae.cli.restore_options import NoiseOptions, Place, RestoreOptions
from distvae.cli.train import configure
from distvae.config import flatten
from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.report import write_and_log
from distvae.report.page import MAX_PICTURE_BYTES, MAX_SECONDS, MAX_WIDTH, picture, sound
from distvae.report.reading import RunResults, read_results
from distvae.report.runs import command
from tests.report import folders
from tests.report.reader import Page, alike


def test_a_run_is_told_with_what_was_set_judged_and_seen(tmp_path: Path) -> None:
    folders.trained(tmp_path / "run", train={"rate": 0.0123})
    assert "Not yet evaluated; run 'distvae evaluate" in Page(
        report.write(tmp_path / "run").read_text()
    )
    folders.put_evaluation(tmp_path / "run", "test")
    summary = tmp_path / "run" / "evaluation" / "test" / "summary.json"
    figures = json.loads(summary.read_text())
    summary.write_text(json.dumps(figures | {"iw_bound": -80.5, "iw_bound_row_std": 12.5}))
    found = Page(report.write(tmp_path / "run").read_text())
    facts = alike(found.tables)
    expected = {
        "model.latent": "4",
        "train.rate": "0.0123",
        "hoyer": "0.2500 \N{PLUS-MINUS SIGN} 0.0100",
        "iw_bound_row_std": "12.50",
        "pesq_wb": "",
        "data digest": "tiny-100-0",
    }
    assert {name: facts[name] for name in expected} == expected
    assert not {"train.schedule", "hoyer_std"} & facts.keys()
    assert "Trained for 4 of 4 epochs" in found
    assert len([each for each in found.addresses if each.startswith("data:")]) == 4
    (tmp_path / "run" / "epochs.jsonl").unlink()
    assert "No epoch was finished." in Page(report.write(tmp_path / "run").read_text())


@pytest.mark.slow
def test_a_restoration_is_told_by_its_stages(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = "data.window=[4,4] model.latent=8 model.hidden=[16] estep.states=16 train.batch=32"
    settings = [*small.split(), "train.epochs=2", "train.device=cpu"]
    options = RestoreOptions(run=tmp_path / "run", quiet=True)
    place = Place(tmp_path / "a.png", "denoised", tmp_path / "b.png")
    denoise_file(place, settings, options, NoiseOptions(add_noise=25.0))
    page = Page(report.write(tmp_path / "run").read_text())
    last = read_results(tmp_path / "run")
    assert isinstance(last, RunResults)
    assert f"sigma {last.stages[-1]['sigma']:.2f}" in page
    assert f"psnr {last.stages[-1]['psnr']:.2f}" in page
    assert "--recipe" in page


@pytest.mark.parametrize(
    ("recipe", "given"),
    [
        ("speech-sdm", {"model.dictionary": "dct", "train.rate": 1e-5, "data.path": "a b; c"}),
        ("mnist-vsc", {"model.hidden": [8, 4], "data.path": "1"}),
        ("mnist-vae", {"data.path": "a: b: [c"}),
    ],
)
def test_the_command_of_a_run_resolves_to_its_configuration(
    recipe: str, given: dict[str, Any]
) -> None:
    run = RunResults(Path(recipe))
    run.__dict__.update(info={"recipe": recipe}, config=load(recipe, given))
    program, action, name, *words = shlex.split(command(run))
    assert (program, action, name) == ("distvae", "train", recipe)
    assert flatten(configure(name, words)) == flatten(run.config)


def test_large_pictures_are_made_smaller_and_small_ones_left_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 1600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > MAX_PICTURE_BYTES
    content = base64.b64decode(picture(tmp_path / "a.png").partition(",")[2])
    assert len(content) < (tmp_path / "a.png").stat().st_size / 3
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.width == MAX_WIDTH
    Image.fromarray(noise[:9, :9]).save(tmp_path / "b.png")
    kept = base64.b64decode(picture(tmp_path / "b.png").partition(",")[2])
    assert kept == (tmp_path / "b.png").read_bytes()


def test_a_sound_keeps_its_length_and_place_and_is_hardly_changed(tmp_path: Path) -> None:
    rate, time = 8000, np.arange(8000 * 20) / 8000
    tones = 0.3 * np.sin(2 * np.pi * 300 * time) + 0.2 * np.sin(2 * np.pi * 1200 * time**1.1)
    samples = (20000 * tones).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="PCM_16")
    content = base64.b64decode(sound(tmp_path / "a.wav").partition(",")[2])
    heard, heard_rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert (heard_rate, len(heard)) == (rate, MAX_SECONDS * rate)
    error = heard.astype(float) - samples[: len(heard)]
    assert 10 * np.log10(np.mean(samples.astype(float) ** 2) / np.mean(error**2)) > 20
    assert len(content) < len(heard)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(Refusal, match=r"a\.wav: cannot be read"):
        sound(tmp_path / "a.wav")


def test_results_outlive_a_report_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders.sweep(tmp_path / "sweep", trials=1)
    (tmp_path / "sweep" / "report.html").mkdir()
    write_and_log(tmp_path / "sweep", tmp_path, quiet=False)
    said = capsys.readouterr().err
    assert "the report could not be written" in said
    assert f"'distvae report {tmp_path / 'sweep'}' tries again" in said
    (tmp_path / "sweep" / "report.html").rmdir()
    write_and_log(tmp_path / "sweep", tmp_path, quiet=False)
    assert (
        capsys.readouterr().out == f"report:    {(tmp_path / 'sweep' / 'report.html').as_uri()}\n"
    )
