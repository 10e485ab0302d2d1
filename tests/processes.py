"""Processes that tests start."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

PATIENCE = 30.0
"""Seconds in which a process that is asked to end has to do so."""


@contextmanager
def started(words: Sequence[str], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """Start a process. In the end it is asked to end if it still runs, and then killed, so that a
    test that has failed does not wait for it.
    """
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                process.kill()
