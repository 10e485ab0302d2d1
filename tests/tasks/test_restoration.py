"""Guarantees of restoration, on small pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import distvae
from distvae.config import Config, from_dict
from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.truncated import Truncated
from distvae.tasks.presets import estimate_noise, preset_recipe
from distvae.tasks.restoration import (
    Restoration,
    RunDestination,
    Stage,
    WindowDecoder,
    restore_array,
)
from distvae.train.loop import Interrupted
from tests.slowly import slow

Floats = NDArray[np.float64]
SMALL: dict[str, Any] = {
    "data.window": [4, 4],
    "model.latent": 8,
    "model.hidden": [16],
    "estep.states": 16,
    "train.epochs": 8,
    "train.batch": 16,
    "train.rate": 0.02,
    "train.cycle": 4,
    "train.threads": 1,
    "train.device": "cpu",
}

SMALL_ENCODER: dict[str, Any] = {
    "data.window": [4, 4],
    "model.latent": 6,
    "model.hidden": [16],
    "estep.hidden": [16],
    "train.epochs": 8,
    "train.threads": 1,
    "train.device": "cpu",
}


def config(**changes: Any) -> Config:
    return load("picture-fast", SMALL | changes)


def stripes(height: int = 24, width: int = 28, channels: int = 1) -> Floats:
    """A picture whose windows of four have few causes."""
    _, x, _ = np.mgrid[:height, :width, :channels]
    return np.where((x // 6) % 2, 200.0, 40.0)


def noisy(sigma: float = 30.0, **shape: int) -> Floats:
    clean = stripes(**shape)
    return clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)


def rmse(a: Floats, b: Floats) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def stopped_after(restoration: Restoration, epochs: int) -> list[int]:
    """The epochs that a restoration finished before it did as it was asked."""
    seen: list[int] = []
    stages = restoration.run(lambda: len(seen) >= epochs)
    seen += [next(stages).epoch for _ in range(epochs)]
    with pytest.raises(Interrupted):
        next(stages)
    return seen


def restored(array: Floats, **changes: Any) -> Floats:
    restoration = Restoration(config(**changes), array)
    list(restoration.run())
    return restoration.restored()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("picture-fast", SMALL | {"estep.block": 64}), ("house-gumbel", SMALL_ENCODER)],
    ids=["populations", "encoder"],
)
def test_what_validation_restores_is_what_the_model_restores(
    recipe: str, changes: dict[str, Any]
) -> None:
    restoration = Restoration(load(recipe, changes), noisy())
    trainer = restoration.trainer
    decode = WindowDecoder.of(restoration.config, restoration.patches.grid)

    def decoded() -> Floats:
        return restore_array(restoration.patches, trainer.model, trainer.estep, decode)

    stages = restoration.run()
    for _ in range(3):
        next(stages)
        np.testing.assert_allclose(restoration.restored(), decoded(), rtol=1e-6, atol=1e-4)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        next(restoration.run(lambda: next(asked)))
    np.testing.assert_allclose(restoration.restored(), decoded(), rtol=1e-6, atol=1e-4)


def test_noise_goes_and_its_strength_is_found() -> None:
    restoration = Restoration(config(), noisy())
    stages = list(restoration.run())
    assert [stage.epoch for stage in stages] == list(range(1, 9))
    assert stages[-1].bound > stages[0].bound
    assert rmse(restoration.restored(), stripes()) < 0.5 * rmse(noisy(), stripes())
    assert stages[-1].sigma == pytest.approx(30, rel=0.2)


def test_the_bound_is_that_of_the_array_in_its_own_units() -> None:
    """Standardised or not, the same states under the same parameters explain the same data."""
    array = noisy(height=9, width=9)
    restoration = Restoration(config(**{"data.level": "keep", "train.epochs": 1}), array)
    (stage,) = restoration.run()
    batch = Batch.of(torch.from_numpy(restoration.patches.rows), torch.arange(36))
    q = restoration.trainer.estep.infer(restoration.trainer.model, batch, 0)
    assert isinstance(q, Truncated)
    x = torch.from_numpy(
        restoration.patches.rows * restoration.patches.scale + restoration.patches.shift
    )
    with torch.no_grad():
        output = restoration.trainer.model.decode(q.states.float())
    mean = output * restoration.patches.scale + restoration.patches.shift[0, 0]
    density = torch.distributions.Normal(mean, stage.sigma).log_prob(x[:, None]).sum(-1)
    assert stage.bound == pytest.approx(
        float((density + q.log_prior).logsumexp(1).mean()), rel=1e-4
    )


@pytest.mark.slow
def test_what_is_restored_does_not_depend_on_how_missing_values_were_called() -> None:
    array, gone = noisy(sigma=5), np.random.default_rng(4).random((24, 28, 1)) < 0.3
    once, again = (restored(np.where(gone, np.nan, array)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert np.isfinite(once).all()
    assert rmse(once[gone], stripes()[gone]) < 0.5 * rmse(
        np.full(gone.sum(), array[~gone].mean()), stripes()[gone]
    )


@pytest.mark.slow
def test_a_resumed_restoration_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Restoration(config(), noisy(), destination=RunDestination(tmp_path / "whole"))
    list(whole.run())
    stopped = Restoration(config(), noisy(), destination=RunDestination(tmp_path / "run"))
    stopped_after(stopped, 5)
    resumed = Restoration(
        config(), noisy(), destination=RunDestination(tmp_path / "run", resume=True)
    )
    stages = list(resumed.run())
    assert [stage.epoch for stage in stages] == list(range(6, 9))
    np.testing.assert_array_equal(resumed.restored(), whole.restored())
    in_memory = Restoration(config(), noisy())
    list(in_memory.run())
    np.testing.assert_array_equal(in_memory.restored(), whole.restored())


def test_a_run_on_other_data_or_by_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    brief = config(**{"train.epochs": 1})
    list(Restoration(brief, noisy(), destination=RunDestination(run)).run())
    resuming = RunDestination(run, resume=True)
    with pytest.raises(Refusal, match="other data"):
        next(Restoration(brief, noisy(31), destination=resuming).run())
    with pytest.raises(Refusal, match=r"train\.rate"):
        next(Restoration(config(**{"train.rate": 0.5}), noisy(), destination=resuming).run())


def test_the_level_of_noise_is_found_without_a_model() -> None:
    smooth = np.add.outer(np.linspace(0, 100, 80), np.linspace(0, 90, 90))[..., None]
    array = smooth + 20 * np.random.default_rng(0).standard_normal(smooth.shape)
    assert estimate_noise(array) == pytest.approx(20, rel=0.05)


def test_a_preset_names_a_recipe_that_suits_the_data() -> None:
    picture, sound = noisy(), np.zeros((50, 1))
    assert preset_recipe(picture, "fast", False) == "picture-fast"
    assert preset_recipe(noisy(channels=3), "fast", True) == "colour-fast"
    assert preset_recipe(sound, "balanced", False) == "sound-balanced"
    assert preset_recipe(sound, "balanced", True) == "gaps-balanced"
    assert preset_recipe(sound, "paper", False) == "audio"
    assert preset_recipe(picture, "paper", True) == "house-inpaint"
    assert preset_recipe(noisy(channels=3), "paper", True) == "house-inpaint"
    assert preset_recipe(noisy(20, height=99), "paper", False) == "house-25"
    assert preset_recipe(noisy(60, height=99), "paper", False) == "house-50"
    assert preset_recipe(noisy(60, height=99), "paper", False, sigma=20) == "house-25"
    assert preset_recipe(noisy(20, height=99), "paper", False, sigma=60.0) == "house-50"


@pytest.mark.slow
def test_arrays_go_in_and_come_out_as_they_are() -> None:
    image = noisy()[..., 0]
    seen: list[int] = []
    result = distvae.denoise(image, settings=SMALL, watch=lambda stage: seen.append(stage.epoch))
    assert result.shape == image.shape
    np.testing.assert_array_equal(result[..., None], restored(image[..., None]))
    assert seen == list(range(1, 9))


@pytest.mark.parametrize("no", [np.bool_(False)])
def test_a_watch_ends_a_restoration_with_the_picture_so_far(no: bool | np.bool_) -> None:
    image, seen = noisy()[..., 0], list[int]()

    def watch(stage: Stage) -> bool | np.bool_ | None:
        seen.append(stage.epoch)
        return no if len(seen) == 3 else None

    result = distvae.denoise(image, settings=SMALL, watch=watch)
    assert seen == [1, 2, 3]
    restoration = Restoration(config(), noisy())
    stopped_after(restoration, 3)
    np.testing.assert_array_equal(result, restoration.restored()[..., 0])


def test_a_channel_axis_may_stand_anywhere() -> None:
    colour = noisy(channels=2)
    last = distvae.denoise(colour, settings=SMALL | {"train.epochs": 2}, channel_axis=-1)
    first = distvae.denoise(
        np.moveaxis(colour, -1, 0), settings=SMALL | {"train.epochs": 2}, channel_axis=0
    )
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), last)


@pytest.mark.slow
def test_inpainting_keeps_what_was_observed_and_takes_a_mask_or_nan() -> None:
    image, mask = noisy(5)[..., 0], np.random.default_rng(5).random((24, 28)) < 0.3
    result = distvae.inpaint(np.where(mask, -1, image), mask, settings=SMALL)
    np.testing.assert_array_equal(result[~mask], image[~mask])
    np.testing.assert_array_equal(
        distvae.inpaint(np.where(mask, np.nan, image), settings=SMALL), result
    )
    masked = np.ma.masked_array(image, mask)
    np.testing.assert_array_equal(distvae.inpaint(masked, settings=SMALL), result)
    colour = distvae.inpaint(
        np.stack([image] * 2, 2), mask, settings=SMALL | {"train.epochs": 1}, channel_axis=2
    )
    np.testing.assert_array_equal(colour[~mask], np.stack([image] * 2, 2)[~mask])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"kind": "vae", "likelihood": "gaussian"},
        *slow(
            {"kind": "vae", "likelihood": "gaussian_learned"},
            {"kind": "gumbel", "likelihood": "gaussian"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("drop", [0.3])
def test_other_models_of_real_values_restore_too(model: dict[str, str], drop: float) -> None:
    tree: dict[str, Any] = {
        "data": {"kind": "patches", "window": [4, 4]},
        "model": model | {"latent": 8, "hidden": [32], "beta_warmup": 100},
        "estep": {"kind": "amortised", "input": "raw", "hidden": [32]},
        "train": {"epochs": 30, "batch": 16, "rate": 0.01, "threads": 1, "device": "cpu"},
    }
    clean, given = stripes(), noisy()
    given[np.random.default_rng(2).random(given.shape) < drop] = np.nan
    restoration = Restoration(from_dict(tree), given)
    *_, last = restoration.run()
    assert "sigma" not in last.metrics()
    flat = np.where(np.isnan(given), np.nanmean(given), given)
    assert rmse(restoration.restored(), clean) < 0.7 * rmse(flat, clean)


HOLED = np.where(np.arange(25).reshape(5, 5) == 3, np.nan, 1.0)
BAD = [
    (lambda: distvae.denoise(np.full((20, 20), 7.0)), "all values are 7; .* constant data$"),
    (lambda: distvae.denoise(HOLED), "holds NaN"),
    (
        lambda: distvae.inpaint(np.ones((9, 9, 3)), np.ones((9, 9, 2)), channel_axis=2),
        "mask: 2 channels; 3 expected",
    ),
    (lambda: distvae.denoise(noisy()[..., 0], watch=3), "watch: 3; a function of the state"),  # type: ignore[arg-type]
    (lambda: distvae.denoise(noisy()[..., 0], recipe=Path("no.yaml")), "no.yaml: no such file"),
    (lambda: distvae.denoise(noisy()[..., 0], settings=["a=1"]), "settings: .* is no mapping"),  # type: ignore[arg-type]
    (lambda: distvae.denoise(np.ones((3, 4, 5))), "3 axes"),
    (lambda: distvae.denoise(np.arange(500.0), counts=True), "counts: for an image"),
    (lambda: distvae.denoise_with_std(np.arange(500.0)), "image: a sound; an image expected"),
    (
        lambda: distvae.denoise(np.ones((3, 9, 9)), counts=True, sigma=2.0, stack_axis=0),
        "counts, sigma: ",
    ),
    (
        lambda: distvae.denoise(-np.arange(243.0).reshape(3, 9, 9), counts=True, stack_axis=0),
        "counts, 0 or more, expected",
    ),
    (
        lambda: distvae.denoise(np.arange(25.0).reshape(5, 5), model="tvae"),
        r"larger than the data's 5 x 5; data\.window=\[5,5\] or a smaller one expected",
    ),
    (
        lambda: distvae.inpaint(np.eye(20), np.eye(20)),
        "all observed values are 0; .* A mask marks what is missing; it may be inverted",
    ),
    (lambda: distvae.denoise(np.eye(9), preset="best"), "preset: no choice 'best'; known: bal"),  # type: ignore[arg-type]
    (
        lambda: distvae.denoise(np.eye(9), preset="fast", recipe="house-25"),
        "preset, recipe: both are given; one of them expected",
    ),
    (lambda: distvae.denoise([[np.inf] * 9] * 9), "infinite"),
    (lambda: distvae.denoise(noisy()[..., 0], recipe="bars"), "not one for restoration"),
    (
        lambda: distvae.denoise(noisy()[..., 0], settings={"data.noise": 5}),
        "no noise is added here",
    ),
    (lambda: distvae.inpaint(np.ones((9, 9)), np.zeros((9, 9))), "nothing is missing"),
    (lambda: distvae.inpaint(np.ones((9, 9)), np.ones((9, 9))), "mask: everything is missing"),
    (
        lambda: distvae.inpaint(np.ones((9, 9)), np.ones((9, 8))),
        r"mask: shape \(9, 8\); \(9, 9\) expected",
    ),
    (lambda: distvae.inpaint(HOLED, np.eye(5)), "observed"),
    (lambda: distvae.inpaint(np.eye(5), HOLED - 1), "mask: holds NaN; true where the image is"),
    (lambda: distvae.inpaint(np.eye(2), [["no", "yes"]] * 2), "mask: holds <U3; real numbers"),
    (lambda: distvae.inpaint(np.eye(2), [[1], [1, 0]]), "mask: rows of different lengths"),
    (lambda: distvae.denoise(np.eye(9), channel_axis=1.5), "channel_axis: 1.5 is not a whole"),  # type: ignore[arg-type]
    (lambda: distvae.denoise(noisy()[..., 0] * 1e160), r"from 1e-30 to 1e\+16 expected"),
]


@pytest.mark.parametrize(("call", "named"), BAD)
def test_bad_arrays_are_refused(call: Any, named: str) -> None:
    with pytest.raises(Refusal, match=named):
        call()
