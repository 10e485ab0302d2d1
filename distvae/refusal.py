"""What is said to a user whose input cannot be used: one exception, shown without a traceback, exit code 2."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk answers that has no room left, or none for this user, or none for a file so large."""


class Refusal(ValueError):
    """Bad input. Its message names the file or field, what is wrong and what would be right."""


@contextmanager
def room(path: str = "") -> Iterator[None]:
    """A full disk refuses what is written to it: to try again would not help."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = path or error.filename or "a file"
        raise Refusal(f"{where}: no room left on the disk; what was finished before is kept") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to close an error message with: the known name nearest to a misspelt one, or all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: on one line, its middle left out where it is long."""
    try:
        return brief(repr(value), most)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, or lists in lists without end
        return "a value too long to show"


def brief(text: str, most: int = 60) -> str:
    """Return a text on one line, its middle left out where it is long."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 20]} ... {line[-15:]}"
    return "".join(letter if letter.isprintable() else "?" for letter in line)
