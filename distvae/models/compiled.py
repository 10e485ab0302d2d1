"""Access to the compiled loops, where there are any."""

from functools import lru_cache
from typing import Any

from torch import Tensor


def kernels(tensor: Tensor) -> Any:
    """Return the compiled loops, or None without numba or for tensors not on the CPU."""
    return _compiled() if tensor.device.type == "cpu" else None


@lru_cache
def _compiled() -> Any:
    try:
        from distvae.models import kernels
    except ImportError:
        return None
    return kernels
