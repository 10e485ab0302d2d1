"""The registry of E-step classes."""

from collections.abc import Callable
from typing import TypeVar

from distvae.config.registry import Family, Registry
from distvae.interface import AnyEStep, AnyModel

C = TypeVar("C", bound=Callable[..., AnyEStep])

ESTEPS: Registry[Callable[..., AnyEStep]] = Registry("estep")


def register(config: type) -> Callable[[C], C]:
    """Register the decorated class as the E-step of a configuration class.

    The class is called with the configuration and the model.
    """
    return ESTEPS.register(config)


def build(config: Family, model: AnyModel) -> AnyEStep:
    """Return the untrained E-step of a configuration, for a model."""
    return ESTEPS.implementation(config)(config, model)
