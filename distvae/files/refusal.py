"""`Refusal`, the one exception for bad input: shown without a traceback, exit code 2."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import Repr

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors for a full disk, a used-up quota, and a file that is too large."""
DISK_FAILED = (
    errno.EIO,
    errno.ENXIO,
    errno.ENODEV,
    errno.ENFILE,
    errno.EMFILE,
    errno.ESTALE,
    errno.ENOLCK,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
)
"""System errors for failed disks and network file systems, and for too many open files."""
MESSAGE = 480
"""The largest number of characters in a message. A longer message loses its middle."""
VALUE = 60
"""The largest number of characters of a value in a message."""
DIGITS = 40
"""The largest number of digits of a whole number in a message."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
"""Characters that control a terminal, and characters that reverse the direction of text."""
PASSWORD = re.compile(r"(:/{1,2})[^\s/@:]*:[^\s@]*@")
"""The user and password of a URI. Conversion to a path removes one of the URI's two slashes."""


class Refusal(ValueError):
    """Bad input. The message names the file or field, the error, and the expected value."""

    def __init__(self, message: str) -> None:
        # file names may contain bytes that are not text
        text = message.encode(errors="backslashreplace").decode()
        text = CONTROL.sub(" ", PASSWORD.sub(r"\1", text))
        super().__init__(shortened(text, MESSAGE))


def cause(error: object) -> str:
    """Return the message of an exception on one line, or the name of its type."""
    return " ".join(str(error).split()) or type(error).__name__


def shortened(text: str, length: int) -> str:
    """Return the text, without its middle if it is longer than `length`."""
    if len(text) <= length:
        return text
    head = (length - 3) * 2 // 3
    return f"{text[:head]}...{text[head + 3 - length :]}"


def shown(value: object) -> str:
    """Return a value for a message: always short, whatever a file contains."""
    return shortened(_SHORT_REPR.repr(value), VALUE)


class _ShortRepr(Repr):
    """A `repr` that cuts nested values, and replaces long numbers by their length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, VALUE, VALUE

    def repr_int(self, x: int, level: int) -> str:
        """Return a whole number, or its number of digits. Python prints at most 4300 digits."""
        digits = int(x.bit_length() * 0.30103) + 1
        return repr(x) if digits <= DIGITS else f"a whole number of about {digits} digits"


_SHORT_REPR = _ShortRepr()


@contextmanager
def refusing_full_disk(path: str = "") -> Iterator[None]:
    """Raise `Refusal` when the disk is full, because trying again would not help.

    Other disk errors keep their type and name the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            if error.errno in DISK_FAILED:
                error.filename = error.filename or path or None
            raise
        file = path or error.filename or "a file"
        raise Refusal(
            f"{file}: no room left on the disk; what was finished before is kept"
        ) from error


def nearest(word: object, known: Iterable[str]) -> str:
    """Return the end of an error message: the known name nearest to `word`, or all known names."""
    names = sorted(known)
    text = word if isinstance(word, str) else shown(word)
    close = get_close_matches(text[:VALUE], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"
