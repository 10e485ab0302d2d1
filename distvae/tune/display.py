"""What a person sees of a sweep: a live table on a terminal, plain lines elsewhere, or nothing."""

import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from distvae.train.progress import format_duration
from distvae.tune.results import Result
from distvae.tune.space import Space
from distvae.tune.table import progress

if TYPE_CHECKING:
    from rich.table import Table


class SweepDisplay:
    """Keeps a result per trial while it changes, and shows it."""

    def __init__(self, space: Space, quiet: bool) -> None:
        self.space, self.quiet = space, quiet
        self.results: dict[int, Result] = {}
        self._began: dict[int, float] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        """Say what is coming, and show the table on a terminal."""
        space = self.space
        self._say(
            f"{space.trials} trial{'s' * (space.trials != 1)}, {space.concurrent} side by side"
        )
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(
                get_renderable=self.table, console=console, refresh_per_second=2, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the table away: a ranked one comes."""
        if self._live:
            self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles whom it calls back, never to read it, and a live table cannot
        be.
        """
        return {}

    def waits(self, address: str | None) -> None:
        """Ray comes first."""
        self._say(
            f"joining the Ray at {address}" if address else "starting Ray, which takes some seconds"
        )

    def began(self, number: int, values: Mapping[str, Any]) -> None:
        """A trial has a place to run."""
        self.results[number], self._began[number] = Result(number, dict(values)), time.monotonic()
        self._tell(number, "")

    def epoch(self, number: int, epoch: int, bound: float) -> None:
        """A trial finished an epoch."""
        result = self.results[number]
        result.epoch, result.bound = epoch, bound
        self._time(number)

    def recovered(self, number: int) -> None:
        """The process of a trial died, and another takes it up where it was last saved."""
        self._tell(
            number,
            f": its process died at epoch {self.results[number].epoch}; it goes on in another",
        )

    def ended(self, results: Iterable[Result]) -> None:
        """Trials that ended before the sweep was cut short."""
        for result in results:
            self.results[result.number] = result
        if self.results:
            self._say(f"ended before: {len(self.results)} of them")

    def halted(self, number: int) -> None:
        """A trial was not worth going on with."""
        result = self.results[number]
        result.state, result.cause = "halted", f"worse than others at epoch {result.epoch}"
        self._time(number)
        self._tell(number, f": halted, {result.cause}")

    def stopped(self, number: int) -> None:
        """A trial kept what it did, and goes on another time."""
        self.results[number].state = "stopped"
        self._time(number)

    def finished(self, number: int, figures: Mapping[str, float]) -> None:
        """A trial was judged."""
        result = self.results[number]
        result.state, result.figures = "finished", dict(figures)
        self._time(number)
        told = ", ".join(f"{name} {figures[name]:.3f}" for name in self.space.metrics)
        self._tell(number, f": {told}  ({format_duration(result.seconds)})")

    def failed(self, number: int, cause: str) -> None:
        """A trial ended without a result."""
        result = self.results[number]
        result.state, result.cause = "failed", cause
        self._time(number)
        self._tell(number, f": failed: {cause}")

    def gave_up(self) -> None:
        """All trials failed so far, and the others would as well."""
        count = len(self.results)
        self._say(
            f"the first {count} trials failed, and the other {self.space.trials - count} were not"
            " begun"
        )

    def table(self) -> "Table":
        """The trials so far."""
        results = list(self.results.values())
        for result in results:
            if result.state == "training":
                self._time(result.number)
        return progress(results, self.space)

    def _time(self, number: int) -> None:
        self.results[number].seconds = time.monotonic() - self._began[number]

    def _tell(self, number: int, text: str) -> None:
        self._say(f"trial {number}/{self.space.trials}: {self.results[number].label}{text}")

    def _say(self, line: str) -> None:
        if not (self.quiet or self._live):
            print(line, file=sys.stderr, flush=True)
