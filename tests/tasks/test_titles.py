"""The titles of pictures describe the trained model, whatever options named it."""

from pathlib import Path
from typing import Any

import pytest

from distvae.config.recipes import load
from distvae.tasks.run_pictures import pictures_of
from distvae.tasks.titles import run_title
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny

RUNS = [
    ("speech-vae", {}, "vae latent 32, from speech-vae"),
    ("speech-vsc", {}, "vsc latent 32, from speech-vsc"),
    ("speech-vae", {"model.kind": "vsc"}, "vsc latent 32, from speech-vae"),
    (
        "speech-vae",
        {"model.kind": "vsc", "model.latent": 4, "model.alpha": 0.4123},
        "vsc latent 4 alpha 0.412, from speech-vae",
    ),
    ("speech-vae", {"model.latent": 4}, "vae latent 4, from speech-vae"),
    (
        "speech-sdm",
        {"model.dictionary": "dct", "model.atoms": 8},
        "sdm latent 32 dct atoms 8, from speech-sdm",
    ),
]


@pytest.mark.parametrize(("recipe", "settings", "title"), RUNS)
def test_a_title_says_the_model_and_how_it_differs_from_the_recipes(
    tmp_path: Path, recipe: str, settings: dict[str, Any], title: str
) -> None:
    config = load(recipe, {"train.epochs": 1, "train.device": "cpu"} | settings)
    list(fit(config, tiny.dataset(40), tmp_path / "run", recipe=recipe))
    assert run_title(Run.open(tmp_path / "run")) == title


def test_every_picture_has_it(speech_run: Run, tmp_path: Path) -> None:
    """The recipe is not one of the package's, and so says nothing of the model."""
    for name, drawing in pictures_of(speech_run, "test"):
        figure = drawing()
        texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        assert any(text.startswith("sdm latent 6, from tiny") for text in texts), name
