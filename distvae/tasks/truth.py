"""How close a model of bars comes to what made them, which is known."""

import itertools
import math
from typing import Any

import numpy as np
import torch

from distvae.config import BarsData, TVAEModel
from distvae.data.bars import parts
from distvae.data.dataset import Array
from distvae.train.run import Run

ENUMERABLE = 12
"""Bars whose every combination is looked at."""
ALIKE = 0.3
"""Root mean square of what may differ over the pixels of a bar."""


def judge_truth(run: Run, x: Array, bound: float) -> dict[str, float]:
    """Of bars: the log-likelihood of what made them, how far the bound is from it, and the share of bars found."""
    data = run.config.data
    if (
        not isinstance(data, BarsData)
        or 2 * data.size > ENUMERABLE
        or not data.variance
        or data.active >= 2 * data.size
    ):
        return {}
    truth = log_likelihood(data, x)
    told = {"true_log_likelihood": truth, "reliability": (bound - truth) / abs(truth)}
    if isinstance(run.config.model, TVAEModel):
        told["recovered"] = recovered(run.model, data.size)
    return told


def log_likelihood(data: BarsData, x: Array) -> float:
    """log p(x) under the parameters that made the bars, by enumeration, nats per image."""
    causes, chance = parts(data.size).astype(np.float64), data.active / (2 * data.size)
    states = np.array(list(itertools.product((0, 1), repeat=len(causes))), dtype=np.float64)
    prior = states.sum(1) * math.log(chance) + (1 - states).sum(1) * math.log1p(-chance)
    means = states @ causes
    distance = np.square(x).sum(1)[:, None] - 2 * x @ means.T + np.square(means).sum(1)
    density = -0.5 * (distance / data.variance + x.shape[1] * math.log(2 * math.pi * data.variance))
    return float(torch.from_numpy(prior + density).logsumexp(1).mean())


@torch.no_grad()
def recovered(model: Any, size: int) -> float:
    """The share of bars that are what one latent, and another for each, adds to the picture."""
    alone = model.decode(torch.eye(model.states)[:, None])[:, 0] - model.decode(torch.zeros(1, 1, model.states))[0]
    distance = torch.cdist(torch.from_numpy(parts(size)), alone) / size**0.5
    near, nearest = distance.min(1)
    return len(set(nearest[near < ALIKE].tolist())) / (2 * size)
