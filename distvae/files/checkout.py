"""The files of a checkout outside the package. An installed package contains them too."""

from collections.abc import Iterator
from pathlib import Path

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
