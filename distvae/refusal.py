"""What is said to a user whose input cannot be used: one exception, shown without a traceback, exit code 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class Refusal(ValueError):
    """Bad input. Its message names the file or field, what is wrong and what would be right."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to close an error message with: the known name nearest to a misspelt one, or all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
