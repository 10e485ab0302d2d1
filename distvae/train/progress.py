"""Show progress: a live line on a terminal, a bar in a notebook, plain lines, JSON for programs, or
nothing.
"""

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from distvae.files.untrusted import finite, printable

if TYPE_CHECKING:
    from distvae.train.loop import Epoch

Style = Literal["line", "quiet", "json"]
ECHO_SECONDS = 1.0
"""Seconds within which a second signal counts as a repetition of the first: torchrun forwards
signals to workers that a terminal or Slurm has already signalled."""
LEAST_SECONDS = 60.0
"""The shortest time over which a pace is measured, once that much time has passed."""


class Mark(NamedTuple):
    """The progress at some time."""

    seconds: float
    done: int
    """The number of finished epochs, for instance."""


class ProgressRecord(Protocol):
    """A record of one finished epoch."""

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""

    @property
    def epochs(self) -> int:
        """The total number of epochs."""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics to log."""


class Progress:
    """Displays records as they arrive."""

    def __init__(self, style: Style, unit: str) -> None:
        self.style, self.unit = style, unit
        self.live = style == "line" and sys.stderr.isatty()
        self.output = NotebookOutput() if style == "line" and in_notebook() else None
        self.marks: list[Mark] = []

    @property
    def has_shown(self) -> bool:
        """True once a record has been shown."""
        return bool(self.marks)

    def epoch(self, record: "Epoch") -> None:
        """Show an epoch of training."""
        self.show(record, lambda left: describe_epoch(record, self.unit, left))

    def show(self, record: ProgressRecord, line: Callable[[float], str]) -> None:
        """Show a record. `line` describes it, given the seconds left."""
        add_mark(self.marks, Mark(record.seconds, record.epoch))
        if self.style == "json":
            print(json.dumps(finite(record.metrics())), flush=True)
        elif self.output is not None:
            text = line(self._seconds_left(record))
            self.output.show(progress_bar(record.epoch, record.epochs, text))
        elif self.style == "line":
            self._write(line(self._seconds_left(record)), stay=self.live)

    def share(self, done: float, seconds: float) -> None:
        """Show the finished share of work without epochs, on a terminal."""
        if self.live:
            left = seconds * (1 - done) / max(done, 1e-3)
            self._write(f"{done:4.0%}  {format_duration(left)} left", stay=True)
            self.marks = [Mark(seconds, 1)]

    def say(self, text: str) -> None:
        """Print a line, unless the output is JSON or quiet."""
        if self.style == "line":
            self._write(text, stay=False)

    def end(self) -> None:
        """End the live line, so that output continues below it."""
        if self.live and self.has_shown:
            print(file=sys.stderr)

    def _write(self, text: str, stay: bool) -> None:
        """Write a line. With `stay` it is cut to the terminal's width and overwritten later."""
        text = printable(text)
        if stay:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{text[:width]}")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def _seconds_left(self, record: ProgressRecord) -> float:
        """Return the seconds left at the pace of this process."""
        few = len(self.marks) < 2
        pace = record.seconds / record.epoch if few else recent_pace(self.marks)
        return pace * (record.epochs - record.epoch)


def add_mark(marks: list[Mark], mark: Mark) -> None:
    """Add a mark if it shows progress. Epochs repeated after a lost machine do not count."""
    if not marks or mark.done > marks[-1].done:
        marks.append(mark)


def recent_pace(marks: Sequence[Mark]) -> float:
    """Return the seconds per epoch in the later half of the time, or in the last minute if that is
    longer. The last mark must show more progress than the first mark.

    The estimate follows a changing pace soon, but a single slow epoch matters little.
    """
    end = marks[-1]
    begin = end.seconds - max((end.seconds - marks[0].seconds) / 2, LEAST_SECONDS)
    later = bisect_right(marks, begin, key=lambda mark: mark.seconds)
    more = bisect_left(marks, end.done, key=lambda mark: mark.done)
    since = marks[max(min(later, more) - 1, 0)]
    return (end.seconds - since.seconds) / (end.done - since.done)


SEARCH_FIGURES = {
    "sigma": ".3f",
    "active": ".2f",
    "dead": ".0f",
    "substitutions": ".1f",
    "cycles_left": ".0f",
}
"""The metrics of a search over states, and their formats."""


def describe_epoch(record: "Epoch", unit: str, left: float) -> str:
    """Describe an epoch on one line: its number, its metrics, and the time left."""
    rows = record.details.get("val_rows")
    sample = f" ({rows:,.0f} rows)" if rows else ""  # validation rows, if they are a sample
    if "active" in record.details:
        figures = f"bound {record.val_bound:.2f}{sample}"
        for name, digits in SEARCH_FIGURES.items():
            if name in record.details:
                figures += f"  {name} {record.details[name]:{digits}}"
    else:
        is_bound = math.isclose(record.val_bound, record.val_objective, abs_tol=0.05)
        bound = "" if is_bound else f" bound {record.val_bound:.1f}"
        figures = (
            f"nats/{unit} train {record.train_objective:.1f} val {record.val_objective:.1f}{bound}"
            f"{sample}  Hoyer {record.val_hoyer:.3f}  {record.rows_per_second:,.0f} {unit}s/s"
        )
    best = "  best" if record.best else ""
    return f"epoch {record.epoch}/{record.epochs}  {figures}  {format_duration(left)} left{best}"


def format_duration(seconds: float) -> str:
    """Return a duration as 12:34, or 1:23:45."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _write_to_terminal(text: str) -> None:
    """Write to the terminal. If it is closed, discard this and all later output."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stderr.fileno())
        os.close(devnull)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Catch signals that ask to stop. Yield a function that returns the first signal, or 0.

    A second signal after more than ECHO_SECONDS quits at once. Closing the terminal sends a stop
    signal too, unless it was ignored from the start, as under nohup. Outside the main thread no
    signals are caught, and the function returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not received:
            received.append(number)
            first = time.monotonic()
            _write_to_terminal("\nstopping; Ctrl-C again quits at once\n")
        elif time.monotonic() > first + ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    numbers = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.add(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received[0] if received else 0
    except KeyboardInterrupt:  # raised by code that has nothing to save yet
        if not received:
            raise
        _write_to_terminal("distvae: interrupted\n")
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookOutput:
    """A replaceable part of a cell's output."""

    def __init__(self) -> None:
        self._shown = import_module("IPython.display")
        self._handle = self._shown.display(self._shown.HTML(""), display_id=True)

    def show(self, html: str) -> None:
        """Replace the output."""
        self._handle.update(self._shown.HTML(html))


def progress_bar(done: int, count: int, text: str) -> str:
    """Return a progress bar as HTML, with text beside it."""
    return f'<progress value="{done}" max="{count}"></progress> <code>{escape(text)}</code>'
