"""Which class models a configuration."""

from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

MODELS: dict[type, type] = {}


def register(config: type) -> Callable[[C], C]:
    """Let a class model the configurations of one family; it is built from (config, dims[,
    shape]).
    """

    def enter(cls: C) -> C:
        MODELS[config] = cls
        return cls

    return enter


def build(config: Any, dims: int, shape: tuple[int, ...] = ()) -> Any:
    """The model of a configuration, for observations of so many values; of a shape, if its net
    looks at one.
    """
    image = [shape] if getattr(config, "net", "flat") == "conv" else []
    return MODELS[type(config)](config, dims, *image)
