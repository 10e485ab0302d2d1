"""Where posteriors come from, and how a model meets its E-step."""

from typing import Any

import torch

from distvae import models
from distvae.config import Config
from distvae.estep.amortised import Amortised


def assemble(config: Config, dims: int) -> tuple[Any, Amortised]:
    """The untrained model and E-step of a configuration; the first weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = models.build(config.model, dims)
        return model, Amortised(config.estep, dims, model)
