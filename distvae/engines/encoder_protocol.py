"""The protocol by which engines use an E-step with an encoder."""

from collections.abc import Iterable
from typing import Protocol, TypeGuard

from torch import Tensor, nn

from distvae import config
from distvae.interface import AnyEStep, TransformsInput
from distvae.models.posteriors import Encoded


class Head(Protocol):
    """A linear layer whose output is turned into a posterior."""

    linear: nn.Linear

    def split(self, output: Tensor) -> Encoded:
        """Return the posterior."""


class HasEncoder(TransformsInput, Protocol):
    """An E-step with an encoder."""

    config: config.Amortised
    trunk: nn.Module
    head: Head
    shift: Tensor
    scale: Tensor

    def parameters(self) -> Iterable[nn.Parameter]:
        """Yield the parameters."""


def has_encoder(estep: AnyEStep) -> TypeGuard[HasEncoder]:
    """Return whether an E-step has an encoder.

    From Python 3.12 on, `isinstance` does not find modules and buffers of an `nn.Module`.
    """
    has_parts = all(hasattr(estep, name) for name in HasEncoder.__annotations__)
    return has_parts and isinstance(estep, TransformsInput)
