"""The TVAE recovers the bars that generated the data."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from distvae.config import BarsData
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.data.generated import all_bars
from distvae.models.tvae import TVAE
from distvae.train.session import build_trainer
from tests.dense import variance


def log_likelihood_of_the_truth(config: BarsData, x: np.ndarray) -> float:
    """Return log p(x) under the true parameters, by enumeration, in nats per image."""
    causes, chance = all_bars(config.size).astype(np.float64), config.active / (2 * config.size)
    states = np.array(list(itertools.product((0, 1), repeat=len(causes))), dtype=np.float64)
    prior = (states * math.log(chance) + (1 - states) * math.log1p(-chance)).sum(1)
    distance = ((x[:, None] - states @ causes) ** 2).sum(-1)
    density = -0.5 * (
        distance / config.variance + x.shape[1] * math.log(2 * math.pi * config.variance)
    )
    return float(logsumexp(prior + density, axis=1).mean())


def recovered(model: TVAE, size: int) -> bool:
    """Return whether each bar is the contribution of exactly one latent."""
    with torch.no_grad():
        alone = (
            model.decode(torch.eye(2 * size)[:, None])[:, 0]
            - model.decode(torch.zeros(1, 1, 2 * size))[0]
        )
    distance = torch.cdist(torch.from_numpy(all_bars(size)), alone) / size**0.5
    return sorted(distance.argmin(1).tolist()) == list(range(2 * size)) and bool(
        (distance.amin(1) < 0.3).all()
    )


@pytest.mark.slow
def test_the_best_of_ten_runs_recovers_all_bars_at_the_likelihood_of_the_truth() -> None:
    """The first seed recovers them on x86-64. With other last digits another one may."""
    found = []
    for seed in range(4, 14):
        config = load("bars", {"train.seed": seed, "train.device": "cpu"})
        assert isinstance(config.data, BarsData)
        data = open_dataset(config.data)
        trainer = build_trainer(config, data)
        *_, last = trainer.run()
        assert isinstance(trainer.model, TVAE)
        found.append(last.val_bound)
        truth = log_likelihood_of_the_truth(config.data, data.splits["train"][:])
        if recovered(trainer.model, config.data.size):
            assert last.val_bound > truth - 0.1
            assert float(variance(trainer.model)) == pytest.approx(config.data.variance, rel=0.1)
            return
    raise AssertionError(f"no run recovered the bars; bounds {found}")
