"""The versions that a checkout is made for, and others that a text names."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = dict(
    re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
)
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
(PYTHON,) = re.findall(r"Python :: (3\.\d+)", " ".join(CLASSIFIERS))
PYTHON_VERSION = r"python(?::|-| )?(3\.\d+)|--python[ =](3\.\d+)"


def other_versions(text: str) -> Iterator[str]:
    """Yield the versions of Python and of packages that differ from the lock."""
    for found in re.findall(PYTHON_VERSION, text):
        if "".join(found) != PYTHON:
            yield f"Python: {''.join(found)}, {PYTHON} expected"
    for package, version in re.findall(r"\b(\w[\w-]*)(?:\[[\w,]*\])?==([\w.]+)", text):
        if PINS.get(package) != version:
            yield f"{package}: {version}, {PINS.get(package)} expected"
    for version in re.findall(r"rayproject/ray(?:-ml)?:([\d.]+)", text):
        if version != PINS["ray"]:
            yield f"ray: {version}, {PINS['ray']} expected"
