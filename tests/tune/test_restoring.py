"""Trials that restore a picture or a sound are ranked by their distance from the clean original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from skimage.metrics import peak_signal_noise_ratio

from distvae.config.recipes import load
from distvae.data import open_dataset, signals
from distvae.data.signals import Signal
from distvae.tasks.evaluate import score_run
from distvae.train.run import Run
from distvae.train.session import fit
from distvae.tune.results import Result, rank
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.called import Called

SMALL = {
    "model.hidden": [16],
    "estep.states": 16,
    "estep.parents": 4,
    "estep.children": 2,
    "estep.generations": 1,
    "train.epochs": 4,
    "train.batch": 32,
    "train.cycle": 4,
    "train.threads": 1,
    "train.device": "cpu",
    "data.noise_seed": 7,
}
PICTURE = SMALL | {"data.window": [4, 4], "estep.selection": "fitness", "data.noise": 30.0}
SOUND = SMALL | {"data.window": [16], "data.noise": 0.1}
SETTINGS: list[dict[str, Any]] = [
    {"model.latent": 8, "train.rate": 0.02},
    {"model.latent": 4, "train.rate": 1e-4},
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A deep grey picture, so that writing it rounds little, of values that noise does not take out
    of range.
    """
    x = np.mgrid[:24, :28, :1][1]
    stripes = Signal(np.where((x // 6) % 2, 160.0, 90.0), bits=16)
    signals.write(path := tmp_path / "clean.png", stripes)
    return path


def tried(
    name: str, source: Path, fixed: dict[str, Any], settings: list[dict[str, Any]]
) -> list[Result]:
    """Trials of a space, without Ray, as they are ranked."""
    space = load_space(name).pinned(fixed | {"data.path": str(source)})
    found = []
    for number, values in enumerate(settings, 1):
        *_, last = run_trial(Trials(space, source.parent / name), number, values)
        found.append(Result(number, values, "finished", figures=last["figures"]))
    return rank(found, space.metrics)


def restored(call: Called, *words: str | Path, **settings: Any) -> dict[str, float]:
    """The last figures that `distvae denoise` tells."""
    pairs = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    code, out, err = call("denoise", *map(str, words), *pairs, "--json")
    assert not code, err
    return dict(json.loads(out.splitlines()[-1]))


@pytest.mark.slow
def test_trials_are_ranked_by_what_the_command_reports(
    picture: Path, tmp_path: Path, call: Called
) -> None:
    clean = signals.read_signal(picture).values
    written = {}
    ranked = tried("tvae-picture", picture, PICTURE, SETTINGS)
    for result in ranked:
        out = tmp_path / f"{result.number}.png"
        scores = restored(call, picture, out, **PICTURE, **result.values)
        for name in ("psnr", "ssim"):
            assert result.figures[name] == pytest.approx(scores[name], abs=1e-9)
        values = signals.read_signal(out).values
        written[result.number] = peak_signal_noise_ratio(clean, values, data_range=255)
        assert result.figures["psnr"] == pytest.approx(written[result.number], abs=2e-3)
    numbers = [result.number for result in ranked]
    assert numbers == sorted(written, key=lambda number: -written[number])

    wave = 0.5 * np.sign(np.sin(2 * np.pi * 700 * np.arange(600) / 16000))
    soundfile.write(sound := tmp_path / "clean.wav", wave, 16000)
    (best,) = tried("tvae-sound", sound, SOUND, SETTINGS[:1])
    words: list[str | Path] = [sound, tmp_path / "out.wav", "--recipe", "sound-fast"]
    scores = restored(call, *words, **SOUND, **best.values)
    assert best.figures["snr_gain"] == pytest.approx(scores["snr_gain"], abs=1e-9)
    clean = signals.read_signal(sound).values
    noise = 0.1 * np.random.default_rng(7).standard_normal(clean.shape)
    before = 10 * np.log10(np.square(clean).sum() / np.square(noise).sum())
    assert best.figures["snr"] - best.figures["snr_gain"] == pytest.approx(before)


@pytest.mark.slow
def test_on_other_data_nothing_is_said_of_what_was_clean(picture: Path, tmp_path: Path) -> None:
    given = {"data.path": str(picture), "estep.sweeps": 1, "train.epochs": 1}
    config = load("picture-fast", PICTURE | SETTINGS[0] | given)
    list(fit(config, open_dataset(config.data), tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    assert "psnr" in score_run(run).summary
    run.config = config.with_("data", noise_seed=8)
    judgement = score_run(run)
    assert "psnr" not in judgement.summary
    assert "trained on other data" in judgement.notes[0]
