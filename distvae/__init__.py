"""Variational autoencoders with sparse, dictionary and binary latents, from a laptop core to a cluster."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from distvae.train.run import Run

__all__ = ["load"]


def load(run: "Path | str") -> "Run":
    """The trained run in a folder: `.encode(x)`, `.decode(z)`, `.sample(n)`."""
    from distvae.train.run import Run

    return Run.open(run)
