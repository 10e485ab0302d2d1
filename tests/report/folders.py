"""Folders of sweeps as `distvae tune` leaves them, without having run: trials that ended, failed,
or were cut off.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from distvae.train.session import fit
from distvae.tune.folder import SWEEP_FILE, describe_sweep
from distvae.tune.results import Result, rank
from distvae.tune.space import read_space
from distvae.tune.study import OptunaStudy
from tests import tiny

TREE: dict[str, Any] = {
    "base": "mnist-vae",
    "metrics": {"squared_error": "min", "hoyer": "max"},
    "trials": 6,
    "search": "random",
    "axes": [
        {"key": "model.kind", "choice": ["vae", "vsc"]},
        {"key": "model.latent", "choice": [2, 4, 8]},
        {"key": "model.alpha", "float": [0.2, 0.5], "when": {"model.kind": "vsc"}},
    ],
}
Judge = Callable[[int, dict[str, Any]], Result | None]
"""The result of a trial; None if the trial is cut off."""


def judged(number: int, values: dict[str, Any]) -> Result:
    """A trial that finished, with figures of its own."""
    chance = np.random.default_rng(number)
    error, sparse = chance.uniform(0.01, 0.02), chance.uniform(0.2, 0.9)
    bound = -1234.5678 * chance.uniform(1, 2)
    figures = {"val_bound": bound, "images": 640.0, "squared_error": error, "hoyer": sparse}
    figures |= {"effective_atoms": 1 + 3 * (1 - sparse)}
    return Result(number, values, "finished", 4, bound - 1, figures, 61.0 + number)


def sweep(folder: Path, judge: Judge = judged, **fields: Any) -> list[Result]:
    """Make the folder of a sweep whose trials end as they are judged; return the ranked results."""
    folder.mkdir(exist_ok=True)
    space = read_space("tiny", TREE | fields)
    (folder / SWEEP_FILE).write_text(json.dumps(describe_sweep(space)))
    study = OptunaStudy(space, folder)
    while setting := study.next_trial():
        if result := judge(setting.number, setting.values):
            study.record_result(result)
    return rank(study.results, space.metrics)


def trained(folder: Path, **sections: Any) -> None:
    """Train a small run into a folder."""
    list(fit(tiny.config(**sections), tiny.dataset(), folder))


def put_evaluation(folder: Path, split: str = "val") -> None:
    """Put figures, a picture and sounds beside a run, as judging does."""
    judgement = folder / "evaluation" / split
    judgement.mkdir(parents=True)
    (judgement / "summary.json").write_text('{"hoyer": 0.25, "hoyer_std": 0.01, "pesq_wb": null}')
    chance = np.random.default_rng(0)
    picture = Image.fromarray(chance.integers(0, 256, (20, 30, 3), np.uint8))
    picture.save(judgement / "spectrogram.png")
    for name in ("original", "reconstruction"):
        soundfile.write(judgement / f"{name}.wav", chance.uniform(-0.5, 0.5, 800), 8000)
