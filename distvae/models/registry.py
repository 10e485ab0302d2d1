"""The classes that implement the families of models."""

from collections.abc import Callable
from typing import TypeVar

from distvae.config.registry import Family, Registry
from distvae.interface import AnyModel

C = TypeVar("C", bound=Callable[..., AnyModel])

MODELS: Registry[Callable[..., AnyModel]] = Registry("model")


def register(config: type) -> Callable[[C], C]:
    """Register the decorated class as the model of a configuration class.

    It is called with the configuration and the number of values of an observation, and with the
    shape of an image as well if the model or its encoder has `net: conv`.
    """
    return MODELS.register(config)


def build(config: Family, dims: int, shape: tuple[int, ...] = ()) -> AnyModel:
    """Return the untrained model of a configuration, for observations of a size.

    It is given their shape if there is a net of convolutions.
    """
    model = MODELS.implementation(config)
    return model(config, dims, shape) if shape else model(config, dims)
