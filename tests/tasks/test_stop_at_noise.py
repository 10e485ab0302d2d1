"""Training that ends once a TVAE explains all but the noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distvae.config import Config, from_dict
from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.tasks.arrays import denoise
from distvae.tasks.restoration import Restoration, RunDestination, check_restorable
from distvae.train.loop import BELOW
from distvae.train.run_folder import read_info
from distvae.train.session import build_trainer
from distvae.train.team import Team
from tests.tasks.test_restoration import SMALL, Floats, noisy, rmse, stopped_after, stripes
from tests.train.crew import crew_of

EPOCHS, NOISE = 40, 60.0
LEARNS_NOISE = {"model.latent": 16, "model.hidden": [64], "train.cycle": EPOCHS}


def config(**changes: Any) -> Config:
    return load("picture-fast", SMALL | LEARNS_NOISE | {"train.epochs": EPOCHS} | changes)


@pytest.fixture(scope="module")
def array() -> Floats:
    return noisy(NOISE, height=40, width=40)


@pytest.fixture(scope="module")
def ended(array: Floats) -> Restoration:
    restoration = Restoration(config(), array)
    list(restoration.run())
    return restoration


@pytest.mark.slow
def test_training_ends_in_the_first_epoch_with_sigma_below_the_noise(array: Floats) -> None:
    restoration = Restoration(config(), array)
    *earlier, last = restoration.run()
    assert restoration.noise == pytest.approx(NOISE, rel=0.05)
    assert last.epoch < EPOCHS
    assert last.sigma <= BELOW * restoration.noise < min(stage.sigma for stage in earlier)
    assert restoration.progress == f"after epoch {last.epoch}, with sigma below the noise"


@pytest.mark.slow
def test_training_ends_at_a_level_that_is_told_instead(array: Floats, ended: Restoration) -> None:
    told = {"train.sigma": 1.2 * NOISE}
    restoration = Restoration(config(**told), array)
    *earlier, last = restoration.run()
    assert restoration.noise == pytest.approx(1.2 * NOISE)
    assert last.epoch < ended.trainer.position.epoch
    assert last.sigma <= BELOW * 1.2 * NOISE < min(stage.sigma for stage in earlier)
    settings = SMALL | LEARNS_NOISE | {"train.epochs": EPOCHS}
    restored = denoise(array[..., 0], sigma=1.2 * NOISE, settings=settings)
    np.testing.assert_array_equal(restored, restoration.restored()[..., 0])


@pytest.mark.slow
def test_it_restores_better_than_a_training_that_learns_the_noise(
    array: Floats, ended: Restoration
) -> None:
    longer = Restoration(config(**{"train.stop_at_noise": False}), array)
    *_, last = longer.run()
    assert last.epoch == EPOCHS
    assert last.sigma < BELOW * ended.noise
    clean = stripes(40, 40)
    assert rmse(ended.restored(), clean) < 0.9 * rmse(longer.restored(), clean)


@pytest.mark.slow
def test_a_resumed_training_ends_in_the_same_epoch(
    array: Floats, ended: Restoration, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped_after(Restoration(config(), array, destination=RunDestination(run)), 2)
    resumed = Restoration(config(), array, destination=RunDestination(run, resume=True))
    *_, last = resumed.run()
    scale = resumed.patches.scale
    assert scale * read_info(run)["noise"] == resumed.noise
    assert last.epoch == ended.trainer.position.epoch
    np.testing.assert_array_equal(resumed.restored(), ended.restored())
    again = Restoration(config(), array, destination=RunDestination(run, resume=True))
    assert not list(again.run())
    np.testing.assert_array_equal(again.restored(), ended.restored())


def train_together(team: Team, array: Floats) -> tuple[int, float]:
    """Train as a restoration does; return the epochs and the noise at which it ends."""
    wanted = config()
    windows = check_restorable(wanted, array, "picture")
    trainer = build_trainer(wanted, windows.dataset("picture", windows.cut(array)), team)
    *_, last = trainer.run()
    return last.epoch, trainer.ending.noise


@pytest.mark.slow
def test_two_workers_end_where_one_does(array: Floats, ended: Restoration) -> None:
    alone = ended.trainer
    with crew_of(2) as crew:
        found = crew.all(train_together, [array, array])
    assert found == [(alone.position.epoch, alone.ending.noise)] * 2


@pytest.mark.parametrize(
    "model",
    [{"kind": "vae", "likelihood": "gaussian"}, {"kind": "tvae", "likelihood": "bernoulli"}],
)
def test_a_model_that_finds_no_noise_is_refused(model: dict[str, str]) -> None:
    with pytest.raises(Refusal, match=r"train.stop_at_noise: true .*; tvae and gaussian expected"):
        from_dict({"model": model, "train": {"stop_at_noise": True}})
    with pytest.raises(Refusal, match=r"train.sigma: 25 .*; tvae and gaussian expected"):
        from_dict({"model": model, "train": {"sigma": 25.0}})
