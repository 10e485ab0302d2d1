"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere, or nothing."""

import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from distvae.progress import clock
from distvae.tune.results import Result
from distvae.tune.table import progress

if TYPE_CHECKING:
    from rich.table import Table


class Watch:
    """Keeps a result per trial while it changes, and shows it."""

    def __init__(self, trials: int, epochs: int, metrics: Iterable[str], quiet: bool) -> None:
        self.trials, self.epochs, self.metrics, self.quiet = trials, epochs, list(metrics), quiet
        self.results: dict[int, Result] = {}
        self._began: dict[int, float] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        """Show the table, on a terminal."""
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self.table, console=Console(stderr=True), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is."""
        if self._live:
            self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles whom it calls back, never to read it, and a live table cannot be."""
        return {}

    def began(self, number: int, values: Mapping[str, Any]) -> None:
        """A trial has a place to run."""
        self.results[number], self._began[number] = Result(number, dict(values)), time.monotonic()
        self._say(f"trial {number}/{self.trials}: {self.results[number].label}")

    def epoch(self, number: int, epoch: int, bound: float) -> None:
        """A trial finished an epoch."""
        result = self.results[number]
        result.epoch, result.bound = epoch, bound
        self._time(number)

    def finished(self, number: int, figures: Mapping[str, float]) -> None:
        """A trial was judged."""
        result = self.results[number]
        result.state, result.figures = "finished", dict(figures)
        self._time(number)
        told = ", ".join(f"{name} {figures[name]:.3f}" for name in self.metrics)
        self._say(f"trial {number}/{self.trials}: {result.label}: {told}  ({clock(result.seconds)})")

    def failed(self, number: int, cause: str) -> None:
        """A trial ended without a result."""
        result = self.results[number]
        result.state, result.cause = "failed", cause
        self._time(number)
        self._say(f"trial {number}/{self.trials}: {result.label}: failed: {cause}")

    def table(self) -> "Table":
        """The trials so far."""
        results = list(self.results.values())
        for result in results:
            if result.state == "training":
                self._time(result.number)
        return progress(results, self.trials, self.epochs, self.metrics)

    def _time(self, number: int) -> None:
        self.results[number].seconds = time.monotonic() - self._began[number]

    def _say(self, line: str) -> None:
        if not (self.quiet or self._live):
            print(line, file=sys.stderr, flush=True)
