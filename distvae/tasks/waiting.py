"""Progress of work after training: a bar on a terminal, otherwise an occasional line."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from distvae.train.progress import format_duration

T = TypeVar("T")
LINE_SECONDS = 10.0
"""Seconds between two lines without a terminal."""


def announce(what: str, wanted: bool) -> None:
    """Print the name of the next piece of work."""
    if wanted:
        print(what, file=sys.stderr, flush=True)


def with_news(items: Iterable[T], count: int, what: str, wanted: bool) -> Iterable[T]:
    """Return the items, and show the number of finished items and the remaining time."""
    if not wanted:
        return items
    if not sys.stderr.isatty():
        return _in_lines(items, count, what)
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total=count, console=Console(stderr=True), transient=True)


def _in_lines(items: Iterable[T], count: int, what: str) -> Iterator[T]:
    began = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= LINE_SECONDS and done < count:
            told = now
            left = format_duration((now - began) / done * (count - done))
            announce(f"{what}: {done:,} of {count:,}, {left} left", wanted=True)
