"""E-steps, their registry, and the assembly of a model with its E-step."""

from collections.abc import Callable
from typing import TypeVar

import torch

from distvae import config
from distvae.config.schema import Registry
from distvae.estep.amortised import Amortised
from distvae.estep.supports import AllSupports, Selection
from distvae.estep.truncated import Evolution, Exact, RandomSearch
from distvae.interface import AnyEStep, AnyModel
from distvae.models import MODELS

E = TypeVar("E", bound=Callable[..., AnyEStep])

ESTEPS: Registry[Callable[..., AnyEStep]] = Registry("estep")
"""The E-step classes, by configuration class."""


def register(config: type) -> Callable[[E], E]:
    """Register the decorated class as the E-step of a configuration class.

    The class is called with the configuration and the model.
    """
    return ESTEPS.register(config)


ESTEPS.update(
    {
        config.Amortised: Amortised,
        config.Evolution: Evolution,
        config.RandomSearch: RandomSearch,
        config.Exact: Exact,
        config.Selection: Selection,
        config.AllSupports: AllSupports,
    }
)


def assemble(
    config: config.Config, dims: int, shape: tuple[int, ...] = ()
) -> tuple[AnyModel, AnyEStep]:
    """Return the untrained model and E-step of a configuration.

    The initial weights depend only on the seed. Only convolutional networks need the shape.
    """
    nets = [getattr(part, "net", "flat") for part in (config.model, config.estep)]
    shapes = [shape] if shape and "conv" in nets else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = MODELS.implementation(config.model)(config.model, dims, *shapes)
        return model, ESTEPS.implementation(config.estep)(config.estep, model)
