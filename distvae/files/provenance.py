"""Which program ran, and where: commit, versions, machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def program_version() -> str:
    """Return the version of this package, or `0+unknown` in a checkout that is not installed."""
    try:
        return version("distvae")
    except PackageNotFoundError:
        return "0+unknown"


def provenance() -> dict[str, Any]:
    """The program and the machine."""
    import torch

    packages = {"distvae": program_version()} | {name: version(name) for name in ("torch", "numpy")}
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "cuda": torch.version.cuda}
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **packages},
        "machine": machine,
    }


def commit() -> str | None:
    """The commit of the checkout that holds this package, marked when changed since; None outside
    one.
    """
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
