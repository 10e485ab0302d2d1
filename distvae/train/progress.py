"""What a person sees of training: a live line on a terminal, plain lines elsewhere, JSON for
programs, or nothing.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from distvae.train.epoch import Epoch

Style = Literal["line", "quiet", "json"]


class ProgressRecord(Protocol):
    """What can be shown: it knows how far it is."""

    @property
    def epoch(self) -> int:
        """How many are finished."""

    @property
    def epochs(self) -> int:
        """How many there will be."""

    @property
    def seconds(self) -> float:
        """Since the beginning."""

    def metrics(self) -> dict[str, float]:
        """The numbers worth logging."""


class Progress:
    """Shows records as they come."""

    def __init__(self, style: Style, unit: str) -> None:
        self.style, self.unit = style, unit
        self.live = style == "line" and sys.stderr.isatty()
        self.seen: list[float] = []

    def epoch(self, record: "Epoch") -> None:
        """Show an epoch of training."""
        self.show(record, lambda left: describe_epoch(record, self.unit, left))

    def show(self, record: ProgressRecord, line: Callable[[float], str]) -> None:
        """Show a record, for a person by a line that is told how many seconds are left."""
        self.seen.append(record.seconds)
        if self.style == "json":
            print(json.dumps(record.metrics()), flush=True)
        elif self.style == "line":
            self._write(line(self._left(record)), stay=self.live)

    def say(self, text: str) -> None:
        """One plain line for a person."""
        if self.style == "line":
            self._write(text, stay=False)

    def end(self) -> None:
        """Leave the live line as it is, and go on below it."""
        if self.live and self.seen:
            print(file=sys.stderr)

    def _write(self, text: str, stay: bool) -> None:
        """A line; one that stays is written over by the next, and is never wider than the
        terminal.
        """
        shown = text[: shutil.get_terminal_size().columns - 1] if stay else text
        sys.stderr.write(f"\r\033[K{shown}" if stay else f"{shown}\n")
        sys.stderr.flush()

    def _left(self, record: ProgressRecord) -> float:
        """Seconds to go at the pace seen in this process."""
        if len(self.seen) < 2:
            return record.seconds / record.epoch * (record.epochs - record.epoch)
        pace = (self.seen[-1] - self.seen[0]) / (len(self.seen) - 1)
        return pace * (record.epochs - record.epoch)


DETAILS = {"sigma": ".3f", "active": ".2f", "dead": ".0f", "substitutions": ".1f"}
"""What a search over states has to tell, and to how many digits."""


def describe_epoch(record: "Epoch", unit: str, left: float) -> str:
    """One line: where training stands and how good it is."""
    told = _searched(record) if "active" in record.details else _encoded(record, unit)
    return (
        f"epoch {record.epoch}/{record.epochs}  {told}  {format_duration(left)}"
        f" left{'  best' if record.best else ''}"
    )


def _encoded(record: "Epoch", unit: str) -> str:
    return (
        f"nats/{unit} train {record.train_objective:.1f} val {record.val_bound:.1f}  "
        f"Hoyer {record.val_hoyer:.3f}  {record.rows_per_second:,.0f} {unit}s/s"
    )


def _searched(record: "Epoch") -> str:
    told = (
        f"{name} {record.details[name]:{digits}}"
        for name, digits in DETAILS.items()
        if name in record.details
    )
    return "  ".join([f"bound {record.val_bound:.2f}", *told])


def format_duration(seconds: float) -> str:
    """A duration as a person writes it."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )


def _last_word(text: str) -> None:
    """Tell a person who may have closed the terminal: then nothing can be written there, and need
    not be.
    """
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """A function that returns the signal that asked to stop, or 0; a second signal quits at once.

    A terminal that is closed asks as well, unless its signal was ignored from the start, as it is
    under nohup.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        asked.append(number)
        _last_word("\nstopping after this batch; once more to quit at once\n")

    hangup = set() if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else {signal.SIGHUP}
    before = {
        number: signal.signal(number, ask) for number in {signal.SIGINT, signal.SIGTERM} | hangup
    }
    try:
        yield lambda: asked[0] if asked else 0
    except KeyboardInterrupt:  # of what has nothing to save yet
        if not asked:
            raise
        _last_word("distvae: interrupted\n")
        raise SystemExit(128 + asked[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
