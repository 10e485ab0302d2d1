"""Where posteriors come from, and how a model meets its E-step."""

from typing import Any

import torch

from distvae import models
from distvae.config import Config
from distvae.estep.amortised import Amortised
from distvae.estep.truncated import Evolution, Exact, RandomSearch


def assemble(config: Config, dims: int, shape: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """The untrained model and E-step of a configuration; the first weights are a function of the
    seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = models.build(config.model, dims, shape)
        return model, _estep(config.estep, dims, shape, model)


def _estep(config: Any, dims: int, shape: tuple[int, ...], model: Any) -> Any:
    if config.kind == "amortised":
        return Amortised(config, dims, model, shape)
    if config.kind == "exact":
        return Exact(model.states)
    return {"evolution": Evolution, "random": RandomSearch}[config.kind](config, model.states)
