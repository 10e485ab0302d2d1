"""Learning rates: what a batch of another size does to them, and to warmups."""

from typing import Any

import numpy as np
import pytest
import torch

from distvae.config import Train
from distvae.train.session import build_trainer
from distvae.train.step import Rates, rate
from tests import tiny

EPOCHS, BASE, STEPS = 6, 16, 40
"""Epochs, the base batch, and its steps in an epoch."""
GROWTH = {"none": 1.0, "root": 2.0, "linear": 4.0}
"""Factors for batches of four times the size."""


def rates(**settings: Any) -> list[float]:
    config = Train(epochs=EPOCHS, **settings)
    steps = STEPS * BASE // config.batch
    return [rate(config, step, steps) for step in range(EPOCHS * steps)]


def test_rates_without_a_scale_are_those_of_a_cosine() -> None:
    found = rates(batch=BASE, rate=0.5, rate_low=0.1, warmup=0)
    angles = np.linspace(0, np.pi, EPOCHS * STEPS, endpoint=False)
    assert found == pytest.approx((0.1 + 0.4 * np.cos(angles / 2) ** 2).tolist())


@pytest.mark.parametrize("scale", GROWTH)
@pytest.mark.parametrize("schedule", ["constant", "cosine", "cyclical"])
def test_a_larger_batch_has_the_rates_of_the_same_rows_times_a_factor(
    scale: str, schedule: str
) -> None:
    own: dict[str, Any] = {"schedule": schedule, "cycle": 3, "rate_low": 1e-4, "warmup": 0}
    base = rates(batch=BASE, **own)
    larger = rates(batch=4 * BASE, base_batch=BASE, scale_rate=scale, **own)
    after_first_epoch = STEPS // 4
    for step in range(after_first_epoch, len(larger)):
        assert larger[step] == pytest.approx(GROWTH[scale] * base[4 * step])


def test_the_factor_grows_over_the_first_epoch() -> None:
    held = rates(batch=64, base_batch=BASE, schedule="constant", warmup=0)
    linear = rates(batch=64, base_batch=BASE, scale_rate="linear", schedule="constant", warmup=0)
    factors = [ours / theirs for ours, theirs in zip(linear, held, strict=True)]
    assert factors[:10] == pytest.approx([1 + 0.3 * (step + 1) for step in range(10)])
    assert factors[9:] == pytest.approx([4.0] * (len(factors) - 9))


def test_a_warmup_takes_as_many_rows_whatever_the_batch() -> None:
    base = rates(batch=BASE, schedule="constant", warmup=100)
    larger = rates(batch=4 * BASE, base_batch=BASE, schedule="constant", warmup=100)
    assert larger == pytest.approx([base[4 * step + 3] for step in range(len(larger))])
    own = rates(batch=4 * BASE, schedule="constant", warmup=100)
    assert own[:50] == pytest.approx(base[:50])  # without a base batch, steps are counted


def test_the_warmups_of_a_model_take_as_many_rows_too() -> None:
    def beta(**train: Any) -> float:
        model = {"beta": 1.0, "beta_warmup": 20}
        trainer = build_trainer(tiny.config(model=model, train=train), tiny.dataset(400))
        trainer.position.batch = 64 // train["batch"]
        trainer.step(np.arange(train["batch"]))
        return float(vars(trainer.model)["beta"])

    assert beta(batch=8) == pytest.approx(8 / 20)
    assert beta(batch=32, base_batch=8) == pytest.approx(8 / 20)
    assert beta(batch=32) == pytest.approx(2 / 20)


def test_the_rate_of_several_steps_at_once_is_recorded_as_that_of_the_last() -> None:
    config = Train(epochs=EPOCHS, batch=BASE, warmup=0)
    rates = Rates(config, STEPS, torch.device("cpu"))
    rates.at(3, steps=4)
    assert rates.last == rate(config, 6, STEPS)
