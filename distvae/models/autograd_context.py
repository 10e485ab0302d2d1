"""What functions with gradients of our own are handed by autograd."""

from typing import Protocol

from torch import Tensor


class Context(Protocol):
    """The part of autograd's context that carries tensors from forward to backward."""

    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the backward pass."""
