"""Addresses of SQLite databases, with any folder names."""

from pathlib import Path
from urllib.parse import quote

MEANT = str.maketrans({character: quote(character) for character in "%?{}"})
"""Characters with a meaning in an address. Optuna replaces names within braces."""


def sqlite_uri(file: Path) -> str:
    """Return the address of a database. SQLite creates the database if it does not exist."""
    return f"sqlite:///{str(file).translate(MEANT)}"


def existing_sqlite_uri(file: Path) -> str:
    """Return the address of an existing database, which SQLite does not create.

    SQLite itself decodes the name once more. With mode rw, SQLite can roll back an interrupted
    transaction after a crash.
    """
    name = quote(str(file.absolute()))
    return f"sqlite:///file:{quote(name)}?mode=rw&uri=true"
