"""Packages that not every installation has: who needs one, and what brings it."""

from importlib.util import find_spec

from distvae.files.refusal import Refusal

BROUGHT_BY = {
    **dict.fromkeys(("librosa", "pystoi", "pandas", "scipy"), "distvae[speech]"),
    **dict.fromkeys(("ray", "optuna", "mlflow", "psutil"), "distvae[tune]"),
    "sklearn": "distvae[sklearn]",
    "tensorboardX": "distvae[tensorboard]",
    "bm3d": "distvae[bm3d]",
    "huggingface_hub": "distvae[hub]",
    "skimage": "scikit-image",
    "pywt": "PyWavelets",
}
"""What pip is asked for, by module."""


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return find_spec(module) is not None


def refuse_missing(work: str, *modules: str) -> None:
    """Refuse work that needs modules of which one is not installed."""
    for module in modules:
        if not is_installed(module):
            raise Refusal(missing_package(module, work))


def missing_package(module: str, work: str = "this") -> str:
    """Return the sentence that says who needs a missing module, and how to install it."""
    wanted = BROUGHT_BY.get(module, module)
    return f"{work} needs the package {module}; pip install '{wanted}' expected"
