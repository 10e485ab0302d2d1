"""E-steps, and the assembly of a model with its E-step."""

import torch

from distvae import models
from distvae.config import Config
from distvae.estep import amortised, truncated
from distvae.interface import AnyEStep, AnyModel
from distvae.models.registry import ESTEPS
from distvae.models.registry import register_estep as register

__all__ = ["amortised", "assemble", "register", "truncated"]


def assemble(config: Config, dims: int, shape: tuple[int, ...] = ()) -> tuple[AnyModel, AnyEStep]:
    """Return the untrained model and E-step of a configuration.

    The initial weights depend only on the seed. Only convolutional networks need the shape.
    """
    nets = [getattr(part, "net", "flat") for part in (config.model, config.estep)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = models.build(config.model, dims, shape if "conv" in nets else ())
        return model, ESTEPS.implementation(config.estep)(config.estep, model)
