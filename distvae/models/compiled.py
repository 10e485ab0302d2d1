"""Access to the compiled loops, which need numba."""

from functools import lru_cache
from types import ModuleType

from torch import Tensor


def kernels(tensor: Tensor) -> ModuleType | None:
    """Return the compiled loops, or None without numba or for a tensor on another device."""
    return _compiled() if tensor.device.type == "cpu" else None


@lru_cache
def _compiled() -> ModuleType | None:
    try:
        from distvae.models import kernels
    except ImportError:
        return None
    return kernels
