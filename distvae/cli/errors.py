"""Errors of the user or of a disk, in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distvae.files.paths import PATH_ERRORS
from distvae.files.program import BROUGHT_BY, missing_package
from distvae.files.refusal import DISK_FAILED, Refusal, refusing_full_disk


@contextmanager
def errors_reported() -> Iterator[None]:
    """Report errors of the user or of a disk in one line, and exit.

    The exit code is 2 for unusable input or a failed disk, and 130 for Ctrl-C. Other errors are
    raised.
    """
    try:
        with refusing_full_disk():
            yield
    except Refusal as error:
        _exit_with(str(error), 2)
    except OSError as error:
        if error.errno in DISK_FAILED:
            reason = os.strerror(error.errno)
            text = (
                f"{error.filename or 'a file'}: {reason}; what was finished before is kept, and"
                " --resume continues from it"
            )
        elif error.errno in PATH_ERRORS:
            text = f"{error.filename}: {error.strerror}; another name or place expected"
        else:
            raise
        _exit_with(str(Refusal(text)), 2)
    except ModuleNotFoundError as error:
        if error.name not in BROUGHT_BY:
            raise
        _exit_with(missing_package(error.name), 2)
    except KeyboardInterrupt:
        _exit_with("interrupted", 130)


def _exit_with(text: str, code: int) -> None:
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(code)
