"""Guarantees of restoration by training, on small pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import distvae
from distvae.config import Config, from_dict
from distvae.config.recipes import load
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.gumbel import Binary
from distvae.models.truncated import Truncated
from distvae.tasks.presets import estimate_noise, preset_recipe
from distvae.tasks.restoration import (
    Restoration,
    RunDestination,
    Stage,
    WindowDecoder,
    check_restorable,
    restore_array,
)
from distvae.train.loop import BELOW, Interrupted
from distvae.train.run_folder import read_info
from distvae.train.session import build_trainer
from distvae.train.team import Team
from tests.train.crew import crew_of

Floats = NDArray[np.float64]
BRIEF: dict[str, Any] = {
    "data.window": [4, 4],
    "model.hidden": [16],
    "train.epochs": 8,
    "train.threads": 1,
    "train.device": "cpu",
}
SMALL = BRIEF | {"model.latent": 8, "estep.states": 16, "train.batch": 16}
SMALL |= {"train.rate": 0.02, "train.cycle": 4}
SMALL_ENCODER = BRIEF | {"model.latent": 6, "estep.hidden": [16]}


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


def stopped_after(restoration: Restoration, epochs: int) -> None:
    """Stop a restoration after some epochs."""
    seen: list[int] = []
    stages = restoration.run(lambda: len(seen) >= epochs)
    seen += [next(stages).epoch for _ in range(epochs)]
    with pytest.raises(Interrupted):
        next(stages)


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
    for _ in range(2):
        next(stages)
        np.testing.assert_allclose(restoration.restored(), decoded(), rtol=1e-6, atol=1e-4)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        next(restoration.run(lambda: next(asked)))
    np.testing.assert_allclose(restoration.restored(), decoded(), rtol=1e-6, atol=1e-4)


@torch.no_grad()
def test_drawn_states_have_the_expectation_over_all_states() -> None:
    rows, bits, draws = 5, 6, 400
    torch.manual_seed(0)
    small = {"model.latent": bits, "model.activation": "tanh"}
    model, _ = assemble(load("house-gumbel", SMALL_ENCODER | small), 16)
    for parameter in model.parameters():
        parameter.mul_(4)  # far from linear in its bits
    q = Binary(logits := torch.randn(rows, bits), torch.zeros_like(logits), 1.0)
    states = torch.cartesian_prod(*bits * [torch.tensor([0.0, 1.0])])
    p = logits.sigmoid()[:, None]
    weight = torch.where(states > 0, p, 1 - p).prod(-1)
    decoded = model.decode(states[None])[0]
    exact = weight @ decoded
    spread = (weight @ decoded.square() - exact.square()).sqrt()
    found = torch.from_numpy(WindowDecoder(draws, seed=3)(model, q, np.arange(rows)))
    allowed = 5 * spread / draws**0.5
    assert ((found - exact).abs() <= allowed).all()
    at_mean = torch.from_numpy(WindowDecoder(0, seed=3)(model, q, np.arange(rows)))
    assert torch.equal(at_mean, model.decode(q.code[:, None])[:, 0])
    assert ((at_mean - exact).abs() > allowed).any(), "the mean of bits decodes to another value"


def test_noise_goes_and_its_strength_is_found() -> None:
    restoration = Restoration(config(), noisy())
    stages = list(restoration.run())
    assert [stage.epoch for stage in stages] == list(range(1, 9))
    assert stages[-1].bound > stages[0].bound
    assert rmse(restoration.restored(), stripes()) < 0.5 * rmse(noisy(), stripes())
    assert stages[-1].sigma == pytest.approx(30, rel=0.2)
    smooth = np.add.outer(np.linspace(0, 100, 80), np.linspace(0, 90, 90))[..., None]
    array = smooth + 20 * np.random.default_rng(0).standard_normal(smooth.shape)
    assert estimate_noise(array) == pytest.approx(20, rel=0.05), "without a model"


def test_the_bound_is_that_of_the_array_in_its_own_units() -> None:
    """Standardised or not, the same states under the same parameters explain the same data."""
    array = noisy(height=9, width=9)
    restoration = Restoration(config(**{"data.level": "keep", "train.epochs": 1}), array)
    (stage,) = restoration.run()
    patches, trainer = restoration.patches, restoration.trainer
    batch = Batch.of(torch.from_numpy(patches.rows), torch.arange(36))
    q = trainer.estep.infer(trainer.model, batch, 0)
    assert isinstance(q, Truncated)
    x = torch.from_numpy(patches.rows * patches.scale + patches.shift)
    with torch.no_grad():
        output = trainer.model.decode(q.states.float())
    mean = output * patches.scale + patches.shift[0, 0]
    density = torch.distributions.Normal(mean, stage.sigma).log_prob(x[:, None]).sum(-1)
    expected = float((density + q.log_prior).logsumexp(1).mean())
    assert stage.bound == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_resumed_restoration_equals_an_uninterrupted_one_and_other_data_is_not_resumed(
    tmp_path: Path,
) -> None:
    whole = Restoration(config(), noisy())
    list(whole.run())
    run = tmp_path / "run"
    stopped_after(Restoration(config(), noisy(), destination=RunDestination(run)), 5)
    resuming = RunDestination(run, resume=True)
    resumed = Restoration(config(), noisy(), destination=resuming)
    assert [stage.epoch for stage in resumed.run()] == list(range(6, 9))
    np.testing.assert_array_equal(resumed.restored(), whole.restored())
    with pytest.raises(Refusal, match="other data"):
        next(Restoration(config(), noisy(31), destination=resuming).run())
    with pytest.raises(Refusal, match=r"train\.rate"):
        next(Restoration(config(**{"train.rate": 0.5}), noisy(), destination=resuming).run())


def test_a_preset_names_a_recipe_that_suits_the_data() -> None:
    picture, colour, sound = noisy(), noisy(channels=3), np.zeros((50, 1))
    weak, strong = noisy(20, height=99), noisy(60, height=99)
    expected: dict[str, tuple[Any, ...]] = {
        "picture-fast": (picture, "fast", False),
        "colour-fast": (colour, "fast", True),
        "sound-balanced": (sound, "balanced", False),
        "gaps-balanced": (sound, "balanced", True),
        "audio": (sound, "paper", False),
        "house-inpaint": (colour, "paper", True),
    }
    for recipe, words in expected.items():
        assert preset_recipe(*words) == recipe
    levels = [(strong, None, "house-50"), (strong, 20, "house-25"), (weak, 60.0, "house-50")]
    for array, sigma, recipe in [(weak, None, "house-25"), *levels]:
        assert preset_recipe(array, "paper", False, sigma) == recipe


def test_a_watch_sees_each_epoch_and_ends_a_restoration_with_the_picture_so_far() -> None:
    image, seen = noisy()[..., 0], list[int]()

    def watch(stage: Stage) -> np.bool_ | None:
        seen.append(stage.epoch)
        return np.bool_(False) if len(seen) == 3 else None

    result = distvae.denoise(image, settings=SMALL, watch=watch)
    assert seen == [1, 2, 3]
    restoration = Restoration(config(), noisy())
    stopped_after(restoration, 3)
    np.testing.assert_array_equal(result, restoration.restored()[..., 0])


@pytest.mark.slow
def test_arrays_take_a_channel_axis_anywhere_and_a_mask_of_any_kind() -> None:
    brief = SMALL | {"train.epochs": 2}
    colour = noisy(channels=2)
    last = distvae.denoise(colour, settings=brief, channel_axis=-1)
    first = distvae.denoise(np.moveaxis(colour, -1, 0), settings=brief, channel_axis=0)
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), last)
    image, mask = noisy(5)[..., 0], np.random.default_rng(5).random((24, 28)) < 0.3
    result = distvae.inpaint(np.where(mask, -1, image), mask, settings=SMALL)
    np.testing.assert_array_equal(result[~mask], image[~mask])
    clean, mean = stripes()[mask][:, 0], np.full(mask.sum(), image[~mask].mean())
    assert rmse(result[mask], clean) < 0.5 * rmse(mean, clean)
    for same in (np.where(mask, np.nan, image), np.ma.masked_array(image, mask)):
        np.testing.assert_array_equal(distvae.inpaint(same, settings=SMALL), result)
    both = np.stack([image] * 2, 2)
    filled = distvae.inpaint(both, mask, settings=brief, channel_axis=2)
    np.testing.assert_array_equal(filled[~mask], both[~mask])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"kind": "vae", "likelihood": "gaussian_learned"},
        {"kind": "gumbel", "likelihood": "gaussian"},
    ],
    ids=str,
)
def test_other_models_of_real_values_restore_too(model: dict[str, str]) -> None:
    tree: dict[str, Any] = {
        "data": {"kind": "patches", "window": [4, 4]},
        "model": model | {"latent": 8, "hidden": [32], "beta_warmup": 100},
        "estep": {"kind": "amortised", "input": "raw", "hidden": [32]},
        "train": {"epochs": 30, "batch": 16, "rate": 0.01, "threads": 1, "device": "cpu"},
    }
    clean, given = stripes(), noisy()
    given[np.random.default_rng(2).random(given.shape) < 0.3] = np.nan
    restoration = Restoration(from_dict(tree), given)
    *_, last = restoration.run()
    assert "sigma" not in last.metrics()
    flat = np.where(np.isnan(given), np.nanmean(given), given)
    assert rmse(restoration.restored(), clean) < 0.7 * rmse(flat, clean)


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_sparse_codes_restore_a_picture_and_fill_its_holes(holes: float) -> None:
    clean, given = stripes()[..., 0], noisy()[..., 0]
    missing = np.random.default_rng(2).random(given.shape) < holes
    settings: dict[str, Any] = {"data.window": [4, 4], "model.latent": 12, "train.epochs": 30}
    if holes:
        restored = distvae.inpaint(given, missing, model="ssc", settings=settings)
        assert rmse(restored[missing], clean[missing]) < 0.3 * np.std(clean)
    else:
        restored = distvae.denoise(given, model="ssc", settings=settings)
        assert rmse(restored, clean) < 0.5 * rmse(given, clean)


NINE, HOLED = np.ones((9, 9)), np.where(np.arange(25).reshape(5, 5) == 3, np.nan, 1.0)
RAMP, GREY = np.arange(500.0), noisy()[..., 0]
STACK = RAMP[:243].reshape(3, 9, 9)
DENOISE: list[tuple[Any, dict[str, Any], str]] = [
    (np.full((20, 20), 7.0), {}, "all values are 7; .* constant data$"),
    (HOLED, {}, "holds NaN"),
    ([[np.inf] * 9] * 9, {}, "infinite"),
    (GREY * 1e160, {}, r"from 1e-30 to 1e\+16 expected"),
    (np.ones((3, 4, 5)), {}, "3 axes"),
    (np.eye(9), {"channel_axis": 1.5}, "channel_axis: 1.5 is not a whole"),
    (GREY, {"watch": 3}, "watch: 3; a function of the state"),
    (GREY, {"recipe": Path("no.yaml")}, "no.yaml: no such file"),
    (GREY, {"recipe": "bars"}, "not one for restoration"),
    (GREY, {"settings": ["a=1"]}, "settings: .* is no mapping"),
    (GREY, {"settings": {"data.noise": 5}}, "no noise is added here"),
    (np.eye(9), {"preset": "best"}, "preset: no choice 'best'; known: bal"),
    (np.eye(9), {"preset": "fast", "recipe": "house-25"}, "preset, recipe: both are given; one"),
    (GREY, {"preset": "fast", "model": "ssc"}, "preset: 'fast' with model 'ssc'; model 'tvae' exp"),
    (np.eye(5), {"model": "tvae"}, r"larger than the data's 5 x 5; data\.window=\[5,5\] or a"),
    (RAMP, {"counts": True}, "counts: for an image"),
    (np.ones((3, 9, 9)), {"counts": True, "sigma": 2.0, "stack_axis": 0}, "counts, sigma: "),
    (-RAMP[:243].reshape(3, 9, 9), {"counts": True, "stack_axis": 0}, "counts, 0 or more, expect"),
    (NINE, {"stack_axis": 0}, "image: 2 axes; two beside stack_axis expected"),
    (STACK, {"stack_axis": 3}, "stack_axis: 3 of an image of 3 axes"),
    (STACK, {"stack_axis": 0, "across": -1}, "across: -1; 0 or more expected"),
    (STACK, {"stack_axis": 0, "preset": "fast"}, "stack_axis: for the model 'groups'"),
    (STACK[:, :7], {"stack_axis": 0}, "a picture of 7 x 9 pixels"),
]
INPAINT: list[tuple[Any, Any, dict[str, Any], str]] = [
    (np.ones((9, 9, 3)), np.ones((9, 9, 2)), {"channel_axis": 2}, "mask: 2 channels; 3 expected"),
    (np.eye(20), np.eye(20), {}, "all observed values are 0; .* it may be inverted"),
    (NINE, 0 * NINE, {}, "nothing is missing"),
    (NINE, NINE, {}, "mask: everything is missing"),
    (NINE, np.ones((9, 8)), {}, r"mask: shape \(9, 8\); \(9, 9\) expected"),
    (HOLED, np.eye(5), {}, "observed"),
    (np.eye(5), HOLED - 1, {}, "mask: holds NaN; true where the image is"),
    (np.eye(2), [["no", "yes"]] * 2, {}, "mask: holds <U3; real numbers"),
    (np.eye(2), [[1], [1, 0]], {}, "mask: rows of different lengths"),
]


def test_bad_arrays_are_refused() -> None:
    for image, options, said in DENOISE:
        with pytest.raises(Refusal, match=said):
            distvae.denoise(image, **options)
    for image, mask, options, said in INPAINT:
        with pytest.raises(Refusal, match=said):
            distvae.inpaint(image, mask, **options)
    with pytest.raises(Refusal, match="image: a sound; an image expected"):
        distvae.denoise_with_std(RAMP)


# --- training that ends once a TVAE explains all but the noise

EPOCHS, NOISE = 40, 60.0
LEARNS_NOISE: dict[str, Any] = {"model.latent": 16, "model.hidden": [64]}
LEARNS_NOISE |= {"train.cycle": EPOCHS, "train.epochs": EPOCHS}


@pytest.fixture(scope="module")
def array() -> Floats:
    return noisy(NOISE, height=40, width=40)


@pytest.fixture(scope="module")
def ended(array: Floats) -> tuple[Restoration, list[Stage]]:
    restoration = Restoration(config(**LEARNS_NOISE), array)
    return restoration, list(restoration.run())


@pytest.mark.slow
def test_training_ends_in_the_first_epoch_with_sigma_below_the_noise(
    array: Floats, ended: tuple[Restoration, list[Stage]]
) -> None:
    found, (*earlier, last) = ended
    assert found.noise == pytest.approx(NOISE, rel=0.05)
    assert last.epoch < EPOCHS
    assert last.sigma <= BELOW * found.noise < min(stage.sigma for stage in earlier)
    assert found.progress == f"after epoch {last.epoch}, with sigma below the noise"
    told = Restoration(config(**LEARNS_NOISE, **{"train.sigma": 1.2 * NOISE}), array)
    *_, sooner = told.run()
    assert told.noise == pytest.approx(1.2 * NOISE)
    assert sooner.epoch < last.epoch
    restored = distvae.denoise(array[..., 0], sigma=1.2 * NOISE, settings=SMALL | LEARNS_NOISE)
    np.testing.assert_array_equal(restored, told.restored()[..., 0])
    longer = Restoration(config(**LEARNS_NOISE, **{"train.stop_at_noise": False}), array)
    *_, learnt = longer.run()
    assert learnt.epoch == EPOCHS
    assert learnt.sigma < BELOW * found.noise
    clean = stripes(40, 40)
    assert rmse(found.restored(), clean) < 0.9 * rmse(longer.restored(), clean)


@pytest.mark.slow
def test_a_resumed_training_ends_in_the_same_epoch(
    array: Floats, ended: tuple[Restoration, list[Stage]], tmp_path: Path
) -> None:
    whole, stages = ended
    wanted, run = config(**LEARNS_NOISE), tmp_path / "run"
    stopped_after(Restoration(wanted, array, destination=RunDestination(run)), 2)
    resumed = Restoration(wanted, array, destination=RunDestination(run, resume=True))
    *_, last = resumed.run()
    assert resumed.patches.scale * read_info(run)["noise"] == resumed.noise
    assert last.epoch == stages[-1].epoch
    np.testing.assert_array_equal(resumed.restored(), whole.restored())
    again = Restoration(wanted, array, destination=RunDestination(run, resume=True))
    assert not list(again.run())
    np.testing.assert_array_equal(again.restored(), whole.restored())


def train_together(team: Team, array: Floats) -> tuple[int, float]:
    """Train as a restoration does; return the epochs and the noise at which it ends."""
    wanted = config(**LEARNS_NOISE)
    windows = check_restorable(wanted, array, "picture")
    trainer = build_trainer(wanted, windows.dataset("picture", windows.cut(array)), team)
    *_, last = trainer.run()
    return last.epoch, trainer.ending.noise


@pytest.mark.slow
def test_two_workers_end_where_one_does(
    array: Floats, ended: tuple[Restoration, list[Stage]]
) -> None:
    alone = ended[0].trainer
    with crew_of(2) as crew:
        found = crew.all(train_together, [array, array])
    assert found == [(alone.position.epoch, alone.ending.noise)] * 2


@pytest.mark.parametrize(
    "model",
    [{"kind": "vae", "likelihood": "gaussian"}, {"kind": "tvae", "likelihood": "bernoulli"}],
)
def test_a_model_that_finds_no_noise_is_refused(model: dict[str, str]) -> None:
    for setting, value in {"stop_at_noise: true": True, "sigma: 25": 25.0}.items():
        name = setting.partition(":")[0]
        with pytest.raises(Refusal, match=rf"train\.{setting} .*; tvae and gaussian expected"):
            from_dict({"model": model, "train": {name: value}})
