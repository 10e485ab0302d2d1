"""Optional packages: the work that needs them, and the extra that installs them."""

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
"""The name of the package on PyPI, or the extra, by module."""


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return find_spec(module) is not None


def refuse_missing(work: str, *modules: str) -> None:
    """Refuse work if a module that it needs is not installed."""
    for module in modules:
        if not is_installed(module):
            raise Refusal(missing_package(module, work))


def missing_package(module: str, work: str = "this") -> str:
    """Return the sentence about a missing module: the work that needs it, and how to install it."""
    wanted = BROUGHT_BY.get(module, module)
    return f"{work} needs the package {module}; pip install '{wanted}' expected"
