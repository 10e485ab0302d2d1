"""Trials that restore a picture or a sound are ranked by their distance from the clean original."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from skimage.metrics import peak_signal_noise_ratio

from distvae import cli
from distvae.config.recipes import load
from distvae.data import open_dataset, signals
from distvae.data.signals import Signal
from distvae.files.refusal import Refusal
from distvae.tasks.evaluate import score_run
from distvae.train.run import Run
from distvae.train.session import fit
from distvae.tune.results import Result, rank
from distvae.tune.space import read_space
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space, validate_space

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
}
PICTURE = SMALL | {
    "data.window": [4, 4],
    "estep.selection": "fitness",
    "data.noise": 30.0,
    "data.noise_seed": 7,
}
SOUND = SMALL | {"data.window": [16], "data.noise": 0.1, "data.noise_seed": 7}
SETTINGS: list[dict[str, Any]] = [
    {"model.latent": 8, "train.rate": 0.02},
    {"model.latent": 4, "train.rate": 1e-4},
]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow server that refuses at once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A deep grey picture, so that writing it rounds little, of values that noise does not take out
    of range.
    """
    x = np.mgrid[:24, :28, :1][1]
    signals.write(
        path := tmp_path / "clean.png", Signal(np.where((x // 6) % 2, 160.0, 90.0), bits=16)
    )
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    t = np.arange(600) / 16000
    soundfile.write(
        path := tmp_path / "clean.wav", 0.5 * np.sign(np.sin(2 * np.pi * 700 * t)), 16000
    )
    return path


def tried(
    name: str, source: Path, fixed: dict[str, Any], folder: Path, settings: list[dict[str, Any]]
) -> list[Result]:
    """Trials of a space, without Ray, as they are ranked."""
    space = load_space(name).pinned(fixed | {"data.path": str(source)})
    found = []
    for number, values in enumerate(settings, 1):
        *_, last = run_trial(Trials(space, folder), number, values)
        found.append(Result(number, values, "finished", figures=last["figures"]))
    return rank(found, space.metrics)


def restored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, float]:
    """The last figures that `distvae denoise` or `inpaint` tells."""
    monkeypatch.setattr(sys, "argv", ["distvae", *words, "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def assignments(settings: dict[str, Any]) -> list[str]:
    return [
        f"{key}={json.dumps(value) if isinstance(value, list) else value}"
        for key, value in settings.items()
    ]


@pytest.mark.slow
def test_trials_are_ranked_by_what_the_command_reports(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean = signals.read_signal(picture).values
    written = {}
    ranked = tried("tvae-picture", picture, PICTURE, tmp_path / "trials", SETTINGS)
    for result in ranked:
        out = tmp_path / f"{result.number}.png"
        words = ["denoise", str(picture), str(out), *assignments(PICTURE | result.values)]
        scores = restored(monkeypatch, capsys, *words)
        assert result.figures["psnr"] == pytest.approx(scores["psnr"], abs=1e-9)
        assert result.figures["ssim"] == pytest.approx(scores["ssim"], abs=1e-9)
        written[result.number] = peak_signal_noise_ratio(
            clean, signals.read_signal(out).values, data_range=255
        )
        assert result.figures["psnr"] == pytest.approx(written[result.number], abs=2e-3)
    assert [result.number for result in ranked] == sorted(
        written, key=lambda number: -written[number]
    )


@pytest.mark.slow
def test_a_sound_has_what_it_gained(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (best,) = tried("tvae-sound", sound, SOUND, tmp_path / "trials", SETTINGS[:1])
    words = ["--recipe", "sound-fast", *assignments(SOUND | best.values)]
    scores = restored(monkeypatch, capsys, "denoise", str(sound), str(tmp_path / "out.wav"), *words)
    assert best.figures["snr_gain"] == pytest.approx(scores["snr_gain"], abs=1e-9)
    clean = signals.read_signal(sound).values
    noise = 0.1 * np.random.default_rng(7).standard_normal(clean.shape)
    before = 10 * np.log10(np.square(clean).sum() / np.square(noise).sum())
    assert best.figures["snr"] - best.figures["snr_gain"] == pytest.approx(before)


def test_on_other_data_nothing_is_said_of_what_was_clean(picture: Path, tmp_path: Path) -> None:
    config = load(
        "picture-fast", PICTURE | SETTINGS[0] | {"data.path": str(picture), "estep.sweeps": 1}
    )
    list(fit(config, open_dataset(config.data), tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    assert "psnr" in score_run(run).summary
    run.config = config.with_("data", noise_seed=8)
    judgement = score_run(run)
    assert "psnr" not in judgement.summary
    assert "trained on other data" in judgement.notes[0]


TREE: dict[str, Any] = {
    "base": "picture-fast",
    "metrics": {"psnr": "max"},
    "axes": [{"key": "train.rate", "float": [1e-3, 1e-2]}],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "metrics.psnr: compares with the clean original"),
        ({"base": "bars", "metrics": {"pesq_wb": "max"}}, r"tvae, or data\.kind speech, expected"),
        (
            {"fixed": {"data.noise": 5}, "metrics": {"snr_gain": "max"}},
            "metrics.snr_gain: no such figure",
        ),
        (
            {"base": "sound-fast", "fixed": {"data.noise": 0.1}, "metrics": {"psnr": "max"}},
            "metrics.psnr: no such figure",
        ),
        (
            {"axes": [{"key": "data.noise", "choice": [0, 25]}], "fixed": {}},
            r"missing for every trial",
        ),
    ],
)
def test_a_space_whose_trials_have_nothing_clean_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        validate_space(read_space("space", TREE | changes))
