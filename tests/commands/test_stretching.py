"""Workers that have few rows each are told of a batch that was measured to hold."""

import pytest

from distvae.commands.stretching import MEASURED, suggest_batch
from distvae.config.recipes import load, parse_assignments
from distvae.config.train import Train


@pytest.mark.parametrize("recipe", ["house-50", "speech-vae", "speech-sdm", "mnist-vsc"])
def test_what_is_suggested_was_measured_and_is_accepted(recipe: str) -> None:
    config = load(recipe)
    advice = suggest_batch(config, 8)
    stretch = MEASURED.get(config.model.kind)
    if stretch is None:
        assert advice == ""
        return
    settings = [word for word in advice.replace(";", " ").split() if word.startswith("train.")]
    train: Train = load(recipe, parse_assignments(settings)).train
    assert config.train.batch < train.batch <= stretch.times * config.train.batch
    assert (train.scale_rate, train.base_batch) == (stretch.scaling, config.train.batch)
    assert f"8 workers have {config.train.batch // 8} rows each" in advice


def test_nothing_is_suggested_to_one_worker_or_to_those_with_enough_rows() -> None:
    assert suggest_batch(load("house-50"), 1) == ""
    assert suggest_batch(load("house-50", {"train.batch": 64}), 2) == ""
    stretched = {"train.batch": 2048, "train.scale_rate": "root"}
    assert suggest_batch(load("house-50", stretched), 256) == ""
