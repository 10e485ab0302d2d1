"""Record the program and the machine: commit, versions, hardware."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from distvae.files.plain import Plain


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
