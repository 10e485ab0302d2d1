"""Baselines by name."""

from collections.abc import Mapping
from typing import TypeVar

from distvae.files.refusal import Refusal

T = TypeVar("T")


def find_method(name: str, known: Mapping[str, T], what: str) -> T:
    """Return the baseline with this name. Refuse a baseline that does not suit the data."""
    if name not in known:
        raise Refusal(f"{name}: no method for {what}; {', '.join(known)} expected")
    return known[name]
