"""What is said to a user whose input cannot be used: one exception, shown without a traceback, exit
code 2.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import Repr

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk answers that has no room left, or none for this user, or none for a file so large."""


MESSAGE = 480
"""Characters that a message may have: a longer one loses its middle."""
VALUE = 60
"""Characters that a value may have within it."""
DIGITS = 40
"""Of a whole number that is written out."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
"""Characters that a terminal obeys instead of showing them."""
PASSWORD = re.compile(r"(:/{1,2})[^\s/@:]*:[^\s@]*@")
"""The user and the password of a URI, which may have lost one of its two slashes to be a path."""


class Refusal(ValueError):
    """Bad input. Its message names the file or field, what is wrong and what would be right."""

    def __init__(self, message: str) -> None:
        text = message.encode(errors="backslashreplace").decode()  # names of files need not be text
        super().__init__(shortened(CONTROL.sub(" ", PASSWORD.sub(r"\1", text)), MESSAGE))


def shortened(text: str, most: int) -> str:
    """Return the text, without its middle if it has more characters than that."""
    if len(text) <= most:
        return text
    head = (most - 3) * 2 // 3
    return f"{text[:head]}...{text[head + 3 - most :]}"


def shown(value: object) -> str:
    """Return a value as a message shows it: never long, whatever somebody wrote into a file."""
    return shortened(_BRIEF.repr(value), VALUE)


class _Brief(Repr):
    """The beginning of nested values, and the length of numbers that are too long to be written
    out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, VALUE, VALUE

    def repr_int(self, x: int, level: int) -> str:
        """Return a whole number, or how many digits it has: Python writes out no more than 4300."""
        digits = int(x.bit_length() * 0.30103) + 1
        return repr(x) if digits <= DIGITS else f"a whole number of about {digits} digits"


_BRIEF = _Brief()


@contextmanager
def refusing_full_disk(path: str = "") -> Iterator[None]:
    """A full disk refuses what is written to it: to try again would not help."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = path or error.filename or "a file"
        raise Refusal(
            f"{where}: no room left on the disk; what was finished before is kept"
        ) from error


def nearest(word: object, known: Iterable[str]) -> str:
    """A suggestion to close an error message with: the known name nearest to a misspelt one, or all
    of them.
    """
    names, text = sorted(known), word if isinstance(word, str) else shown(word)
    close = get_close_matches(text[:VALUE], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"
