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
"""Where names are imported from when they are asked for; the others are estimators."""
_CALLED = ("train", "tune")
"""The subpackages that can be called."""


def load(run: "Path | str") -> "Run":
    """Open a trained run: `.encode(x)`, `.decode(z)`, `.sample(n)`.

    It is named as on the command line: by its folder, its name or id in MLflow, or as
    `best:METRIC@SWEEP`.
    """
    from distvae.cli.options import find_run
    from distvae.train.run import Run

    return Run.open(find_run(run))


def push(run: "Run | Path | str", destination: "Path | str") -> None:
    """Write a trained model with a card to a new folder, which `load` opens, or to a repository of
    the Hugging Face hub, `hf://OWNER/NAME`.
    """
    from distvae.cli.options import find_run
    from distvae.share.pushed import push
    from distvae.train.run import Run

    folder = run.path if isinstance(run, Run) else find_run(run)
    push(folder, str(destination))


def __getattr__(name: str) -> object:
    """Find the version, or import what restores or estimates, when it is asked for."""
    if name == "__version__":
        from distvae.files.provenance import program_version

        return program_version()
    if name in _CALLED:
        return import_module(f"distvae.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'distvae' has no attribute '{name}'")
    return getattr(import_module(_MODULES.get(name, "distvae.estimators")), name)


def __dir__() -> list[str]:
    """Return the names that can be asked for, which an interpreter completes."""
    return sorted({*globals(), *__all__})


class _Called(ModuleType):
    """A subpackage that is called as the function of its name, as in `distvae.train("bars")`."""

    def __call__(self, *args: object, **options: object) -> object:
        """Call that function of `distvae.interactive`, which describes it."""
        return self._function(*args, **options)

    @property
    def __signature__(self) -> "Signature":
        """The parameters of that function."""
        from inspect import signature

        return signature(self._function)

    @property
    def _function(self) -> Callable[..., object]:
        name = self.__name__.rpartition(".")[2]
        function: Callable[..., object] = getattr(import_module("distvae.interactive"), name)
        return function


class _Package(ModuleType):
    """This package. Python sets its subpackages as attributes when it imports them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLED and isinstance(value, ModuleType):
            value.__class__ = _Called
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
