"""Variational autoencoders with sparse, dictionary and binary latents, from a laptop core to a cluster."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from distvae.tasks.arrays import denoise, inpaint
    from distvae.train.run import Run

__all__ = ["denoise", "inpaint", "load"]


def load(run: "Path | str") -> "Run":
    """The trained run in a folder: `.encode(x)`, `.decode(z)`, `.sample(n)`."""
    from distvae.train.run import Run

    return Run.open(run)


def __getattr__(name: str) -> Any:
    """Restoration is imported when it is asked for."""
    if name not in ("denoise", "inpaint"):
        raise AttributeError(f"module 'distvae' has no attribute '{name}'")
    from distvae.tasks import arrays

    return getattr(arrays, name)
