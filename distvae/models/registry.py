"""The registries of model classes and of E-step classes, by configuration class."""

from collections.abc import Callable
from typing import TypeVar

from distvae.config.schema import Family, Registry
from distvae.interface import AnyEStep, AnyModel

M = TypeVar("M", bound=Callable[..., AnyModel])
E = TypeVar("E", bound=Callable[..., AnyEStep])

MODELS: Registry[Callable[..., AnyModel]] = Registry("model")
ESTEPS: Registry[Callable[..., AnyEStep]] = Registry("estep")


def register(config: type) -> Callable[[M], M]:
    """Register the decorated class as the model of a configuration class.

    The class is called with the configuration and the number of values of an observation. If the
    model or its encoder has `net: conv`, it is also called with the shape of an image.
    """
    return MODELS.register(config)


def build(config: Family, dims: int, shape: tuple[int, ...] = ()) -> AnyModel:
    """Return the untrained model of a configuration, for observations of `dims` values.

    `shape` is given only for convolutional networks.
    """
    model = MODELS.implementation(config)
    return model(config, dims, shape) if shape else model(config, dims)


def register_estep(config: type) -> Callable[[E], E]:
    """Register the decorated class as the E-step of a configuration class.

    The class is called with the configuration and the model.
    """
    return ESTEPS.register(config)
