"""Addresses of SQLite databases, whatever the names of their folders."""

from pathlib import Path
from urllib.parse import quote

MEANT = str.maketrans({character: quote(character) for character in "%?{}"})
"""Characters with a meaning in an address; Optuna fills in names within braces."""


def sqlite_uri(file: Path) -> str:
    """Return the address of a database, which is created if it does not exist."""
    return f"sqlite:///{str(file).translate(MEANT)}"


def existing_sqlite_uri(file: Path) -> str:
    """Return the address of a database that is not created.

    SQLite itself decodes the name once more. Its mode rw lets it roll back what a crash left.
    """
    name = quote(str(file.absolute()))
    return f"sqlite:///file:{quote(name)}?mode=rw&uri=true"
