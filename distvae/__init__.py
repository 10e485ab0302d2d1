"""Variational autoencoders with sparse, dictionary and binary latents, from a laptop core to a
cluster.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspect import Signature
    from pathlib import Path

    from distvae.estimators import (
        SDMVAE,
        TVAE,
        VAE,
        VSC,
        BinarySparseCoding,
        GumbelVAE,
        SpeechCoder,
        SpikeSlab,
    )
    from distvae.interactive import train, tune
    from distvae.tasks.arrays import denoise, denoise_with_std, inpaint
    from distvae.train.run import Run

    __version__: str

__all__ = [
    "SDMVAE",
    "TVAE",
    "VAE",
    "VSC",
    "BinarySparseCoding",
    "GumbelVAE",
    "SpeechCoder",
    "SpikeSlab",
    "__version__",
    "denoise",
    "denoise_with_std",
    "inpaint",
    "load",
    "push",
    "train",
    "tune",
]

_MODULES = dict.fromkeys(("denoise", "denoise_with_std", "inpaint"), "distvae.tasks.arrays")
"""The modules of names that are imported lazily. A name not listed here is an estimator."""
_CALLED = ("train", "tune")
"""The subpackages that can be called."""


def load(run: "Path | str") -> "Run":
    """Open a trained run: `.encode(x)`, `.decode(z)`, `.sample(n)`.

    `run` is a folder, a name or id in MLflow, or `best:METRIC@SWEEP`, as on the command line.
    """
    from distvae.cli.options import find_run
    from distvae.train.run import Run

    return Run.open(find_run(run))


def push(run: "Run | Path | str", destination: "Path | str") -> None:
    """Write a trained model and a model card to a new folder or a Hugging Face repository.

    A repository is `hf://OWNER/NAME`. `load` opens the folder.
    """
    from distvae.cli.options import find_run
    from distvae.share import push
    from distvae.train.run import Run

    folder = run.path if isinstance(run, Run) else find_run(run)
    push(folder, str(destination))


def __getattr__(name: str) -> object:
    """Import a public name, or read the version, on first access."""
    if name == "__version__":
        from distvae.files.program import program_version

        return program_version()
    if name in _CALLED:
        return import_module(f"distvae.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'distvae' has no attribute '{name}'")
    return getattr(import_module(_MODULES.get(name, "distvae.estimators")), name)


def __dir__() -> list[str]:
    """Return all public names, for tab completion."""
    return sorted({*globals(), *__all__})


class _Called(ModuleType):
    """A subpackage that can be called, as in `distvae.train("bars")`."""

    def __call__(self, *args: object, **options: object) -> object:
        """Call the function of the same name in `distvae.interactive`."""
        return self._function(*args, **options)

    @property
    def __signature__(self) -> "Signature":
        """The signature of the function of the same name in `distvae.interactive`."""
        from inspect import signature

        return signature(self._function)

    @property
    def _function(self) -> Callable[..., object]:
        name = self.__name__.rpartition(".")[2]
        function: Callable[..., object] = getattr(import_module("distvae.interactive"), name)
        return function


class _Package(ModuleType):
    """The package `distvae`. It makes the subpackages `train` and `tune` callable on import."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLED and isinstance(value, ModuleType):
            value.__class__ = _Called
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
