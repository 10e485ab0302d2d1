"""The program: its files outside the package, its version, the optional packages that work needs,
and the errors that it reports.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from distvae.files.paths import PATH_ERRORS
from distvae.files.refusal import DISK_FAILED, Refusal, refusing_full_disk
from distvae.files.untrusted import Plain

PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "checkout"
"""The folder of these files in an installed package."""
CHECKOUT = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent
SPACES = CHECKOUT / "tune_spaces"
CITATION = CHECKOUT / "CITATION.cff"
PARTS = (
    *("CITATION.cff", "LICENSE", "README.md", "pyproject.toml", "requirements.lock", "setup.py"),
    *("cluster", "tune_spaces"),
)
"""The files and folders, also listed in setup.py and pyproject.toml."""


def checkout_files() -> dict[str, Path]:
    """Return the files that install the package, each by its path in a checkout."""
    placed = {
        file.relative_to(CHECKOUT): file for part in PARTS for file in _files(CHECKOUT / part)
    }
    for file in _files(PACKAGE):
        if INSTALLED not in file.parents:
            placed[file.relative_to(PACKAGE.parent)] = file
    return {place.as_posix(): file for place, file in placed.items()}


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the files below a folder without Python's caches."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


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


@contextmanager
def errors_reported() -> Iterator[None]:
    """Report errors of the user or of a disk in one line, and exit.

    The exit code is 2 for unusable input or a failed disk, and 130 for Ctrl-C. Other errors are
    raised.
    """
    code = 2
    try:
        with refusing_full_disk():
            yield
        return
    except Refusal as error:
        text = str(error)
    except OSError as error:
        if error.errno in DISK_FAILED:
            wanted = "what was finished before is kept, and --resume continues from it"
        elif error.errno in PATH_ERRORS:
            wanted = "another name or place expected"
        else:
            raise
        reason = os.strerror(error.errno)
        text = str(Refusal(f"{error.filename or 'a file'}: {reason}; {wanted}"))
    except ModuleNotFoundError as error:
        if error.name not in BROUGHT_BY:
            raise
        text = missing_package(error.name)
    except KeyboardInterrupt:
        text, code = "interrupted", 130
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(code)


def program_version() -> str:
    """Return the version of this package, or `0+unknown` in a checkout that is not installed."""
    try:
        return version("distvae")
    except PackageNotFoundError:
        return "0+unknown"


class Provenance(TypedDict):
    """The program and the machine that computed a result."""

    commit: str | None
    versions: dict[str, str]
    machine: dict[str, Plain]


def provenance() -> Provenance:
    """Return the program's commit and versions, and the machine."""
    import torch

    versions = {
        "python": platform.python_version(),
        "distvae": program_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
    machine: dict[str, Plain] = {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "cuda": torch.version.cuda,
    }
    return {"commit": commit(), "versions": versions, "machine": machine}


def commit(file: Path = Path(__file__)) -> str | None:
    """Return the commit of the checkout that holds a file, or None outside a checkout.

    The default is a file of this package. The commit ends in `-dirty` if the checkout has
    uncommitted changes.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
