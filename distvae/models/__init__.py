"""One file per model; each reads like the section of its paper. This file registers the models."""

from collections.abc import Callable
from typing import TypeVar

from distvae.config import GumbelModel, SDMModel, SpikeSlabModel, TVAEModel, VAEModel, VSCModel
from distvae.config.schema import Registry
from distvae.interface import AnyModel
from distvae.models.gumbel import Gumbel
from distvae.models.sdm import SDM
from distvae.models.spike_slab import SpikeSlab
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.models.vsc import VSC

M = TypeVar("M", bound=Callable[..., AnyModel])

MODELS: Registry[Callable[..., AnyModel]] = Registry("model")
"""The model classes, by configuration class."""


def register(config: type) -> Callable[[M], M]:
    """Register the decorated class as the model of a configuration class.

    The class is called with the configuration and the number of values of an observation. If the
    model or its encoder has `net: conv`, it is also called with the shape of an image.
    """
    return MODELS.register(config)


MODELS.update(
    {
        VAEModel: VAE,
        SDMModel: SDM,
        VSCModel: VSC,
        GumbelModel: Gumbel,
        TVAEModel: TVAE,
        SpikeSlabModel: SpikeSlab,
    }
)
