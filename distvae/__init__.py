"""Variational autoencoders with sparse, dictionary and binary latents, from a laptop core to a
cluster.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from distvae.tasks.arrays import denoise, inpaint
    from distvae.train.run import Run

    __version__: str

__all__ = ["__version__", "denoise", "inpaint", "load"]


def load(run: "Path | str") -> "Run":
    """Open a trained run: `.encode(x)`, `.decode(z)`, `.sample(n)`.

    It is named as on the command line: by its folder, its name or id in MLflow, or as
    `best:METRIC@SWEEP`.
    """
    from distvae.commands.options import find_run
    from distvae.train.run import Run

    return Run.open(find_run(run))


def __getattr__(name: str) -> Any:
    """Find the version, or import what restores, when it is asked for."""
    if name == "__version__":
        from distvae.files.provenance import program_version

        return program_version()
    if name not in ("denoise", "inpaint"):
        raise AttributeError(f"module 'distvae' has no attribute '{name}'")
    from distvae.tasks import arrays

    return getattr(arrays, name)
