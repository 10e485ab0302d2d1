"""The progress of a sweep for a person: a live table on a terminal or in a notebook, plain lines
elsewhere.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

from distvae.files.plain import Plain
from distvae.numerics.numbers import counted
from distvae.train.notebook import NotebookOutput, in_notebook
from distvae.train.progress import Mark, add_mark, format_duration, recent_pace
from distvae.tune.progress import TrialProgress
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.space import ROW, Space
from distvae.tune.table import html_table, progress_table

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from distvae.train.documents import Lineage

REFRESH_SECONDS = 0.5
"""Seconds between two updates of the table in a notebook."""
LINE_SECONDS = 15.0
"""Seconds between two lines that say how far a sweep is, where there is no terminal."""
LEAST_SECONDS = 5.0
"""Seconds after the first epoch until the pace of a sweep says how long the rest takes."""


class SweepDisplay:
    """The results of the trials so far, shown as they change; a quiet one shows nothing."""

    def __init__(self, space: Space, quiet: bool) -> None:
        self.space, self.quiet = space, quiet
        self.results: dict[int, Result] = {}
        self._start_times: dict[int, float] = {}
        self._seeds: dict[int, int] = {}
        """Which of its seeds each trial trains."""
        self._marks: list[Mark] = []
        """Epochs done of all trials, and when."""
        self._told = -LINE_SECONDS
        """When it was last said how far the sweep is."""
        self._live: Live | None = None
        self._output = NotebookOutput() if not quiet and in_notebook() else None
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        """Say how many trials will run, and show the table on a terminal."""
        space = self.space
        trials = f"{space.count} trial{'s' * (space.count != 1)}"
        self._say(f"{trials}, {space.concurrent} side by side")
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, markup=False, emoji=False)
            self._live = Live(
                get_renderable=self.table, console=console, refresh_per_second=2, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the table; the ranking follows."""
        if self._live:
            self._live.stop()

    def __getstate__(self) -> dict[str, object]:
        """Leave everything out of the pickle that Tune writes and never reads."""
        return {}

    def ray_starts(self, address: str | None) -> None:
        """Say that Ray is being joined or started."""
        self._say(
            f"joining the Ray at {address}" if address else "starting Ray, which takes some seconds"
        )

    def trial_started(
        self,
        number: int,
        values: Mapping[str, Plain],
        lineage: "Lineage | None" = None,
        seconds: float = 0.0,
    ) -> None:
        """Show a trial that starts, that continues another, or that trained for some seconds."""
        result = self.results[number] = Result.of(number, values, lineage)
        result.seconds, self._start_times[number] = seconds, time.monotonic() - seconds
        self._say_of_trial(number, f", continues {result.origin}" if result.origin else "")

    def epoch_finished(self, number: int, ended: EndedEpoch) -> None:
        """Show an epoch of a trial."""
        result = self.results[number]
        if number not in self._seeds:
            self._begin_count(result, ended)
        result.epoch, result.bound, self._seeds[number] = ended
        self._set_seconds(number)
        self._refresh()
        now = time.monotonic()
        add_mark(self._marks, Mark(now, self._epochs_done()))
        if now - self._told >= LINE_SECONDS:
            self._told = now
            seed = f"seed {ended.seed + 1}, " if self.space.seeds > 1 else ""
            of_trial = f"{seed}epoch {ended.epoch}, bound {ended.bound:.1f}"
            self._say_of_trial(number, f": {of_trial}; {self.progress()}")

    def trial_recovered(self, number: int) -> None:
        """Say that the process of a trial died, and that another continues from its checkpoint."""
        epoch = self.results[number].epoch
        self._say_of_trial(number, f": its process died at epoch {epoch}; another continues it")

    def has_ended(self, results: Iterable[Result]) -> None:
        """Take in the trials of a sweep that has no other, and say so."""
        self._take_in(results)
        trials = counted(len(self.results), "trial")
        self._say(f"{trials} ended earlier; nothing is left to train")

    def ended_before(self, results: Iterable[Result]) -> None:
        """Take in trials that ended before the sweep was interrupted."""
        self._take_in(results)
        if self.results:
            self._say(f"{len(self.results)} ended earlier")

    def _take_in(self, results: Iterable[Result]) -> None:
        self.results |= {result.number: result for result in results}

    def trial_halted(self, number: int) -> None:
        """Show a trial that the scheduler stopped early."""
        result = self.results[number]
        result.state, result.cause = "halted", f"worse than others by epoch {result.epoch}"
        self._set_seconds(number)
        self._say_of_trial(number, f": halted, {result.cause}")

    def trial_replaced(self, result: Result) -> None:
        """Show a trial of a population that another has replaced."""
        self.results[result.number] = result
        self._say_of_trial(result.number, f": {result.cause}")

    def trial_stopped(self, number: int) -> None:
        """Note that a trial was interrupted and can be resumed."""
        self.results[number].state = "stopped"
        self._set_seconds(number)

    def trial_interrupted(self, begun: Result, progress: TrialProgress) -> None:
        """Note how far a trial came that can be resumed, whether it went on in this process or not.

        The time of one that did was counted here.
        """
        result = self.results.setdefault(begun.number, begun)
        result.state, result.epoch, result.bound = "stopped", progress.epoch, progress.bound
        if begun.number not in self._start_times:
            result.seconds = progress.seconds

    def trial_finished(self, number: int, figures: Mapping[str, float]) -> None:
        """Show the figures of a trial."""
        result = self.results[number]
        result.state, result.figures = "finished", dict(figures)
        self._set_seconds(number)
        ranked_by = ", ".join(f"{name} {figures[name]:.3f}" for name in self.space.metrics)
        self._say_of_trial(number, f": {ranked_by}  ({format_duration(result.seconds)})")

    def trial_failed(self, number: int, cause: str) -> None:
        """Show a trial that ended without a result."""
        result = self.results[number]
        result.state, result.cause = "failed", cause
        self._set_seconds(number)
        self._say_of_trial(number, f": failed: {cause}")

    def draws(self, count: int) -> None:
        """Say that the pictures of so many runs are drawn, and that the report follows."""
        if count:
            self._say(f"drawing pictures of {count} run{'s' * (count != 1)}, then the report")

    def gave_up(self) -> None:
        """Say how many trials failed, and that others were therefore not started."""
        failed = sum(result.state == "failed" for result in self.results.values())
        rest = self.space.count - len(self.results)
        others = f", and the other {rest} were not started" if rest > 0 else ""
        self._say(f"{counted(failed, 'trial')} failed{others}")

    def progress(self) -> str:
        """Return how many epochs of all trials are done, and how long the others will take here.

        The time of an epoch includes the evaluation of trials.
        """
        done, total = self._epochs_done(), self._epochs_in_all()
        text = f"{done:,} of {total:,} epochs in all"
        if len(self._marks) < 2 or time.monotonic() - self._marks[0].seconds < LEAST_SECONDS:
            return text
        now = Mark(time.monotonic(), self._marks[-1].done)
        left = recent_pace([*self._marks, now]) * (total - done)
        return f"{text}, about {format_duration(left)} left"

    def _epochs_done(self) -> int:
        return sum(map(self._epochs_done_of, self.results.values()))

    def _epochs_done_of(self, result: Result) -> int:
        """Return the epochs of a trial that are done, or that nothing will train any more.

        Branches train what is left of trials of a population that did not finish.
        """
        is_branched = self.space.scheduler == "population"
        ended = ("finished",) if is_branched else ("finished", "halted", "failed")
        if result.state in ended:
            until = self._epochs_in(result)
        else:
            seed = self._seeds.get(result.number, 0)
            until = seed * self.space.epochs(result.values) + result.epoch
        return max(0, until - result.parent_epoch)

    def _epochs_in_all(self) -> int:
        space = self.space
        if space.scheduler == "population":
            return space.trials * space.base.train.epochs
        if space.rows:
            begun = {result.values[ROW] for result in self.results.values()}
            rest = [row.config for name, row in space.rows.items() if name not in begun]
        else:
            rest = [space.base] * space.count
        rest = rest[: max(0, space.count - len(self.results))]
        unknown = space.seeds * sum(config.train.epochs for config in rest)
        return sum(map(self._epochs_in, self.results.values())) + unknown

    def _epochs_in(self, result: Result) -> int:
        """Return the epochs of all seeds of a trial."""
        return self.space.seeds * self.space.epochs(result.values)

    def _begin_count(self, result: Result, first: EndedEpoch) -> None:
        """Keep what a trial trained before the sweep was resumed out of the pace."""
        known = self._epochs_done_of(result)
        result.epoch, self._seeds[result.number] = first.epoch - 1, first.seed
        earlier = self._epochs_done_of(result) - known
        self._marks = [Mark(mark.seconds, mark.done + earlier) for mark in self._marks]

    def table(self) -> "Table":
        """Return the table of the trials so far, with the progress of all below it."""
        results = list(self.results.values())
        for result in results:
            if result.state == "training":
                self._set_seconds(result.number)
        table = progress_table(results, self.space)
        table.caption = self.progress()
        return table

    def _set_seconds(self, number: int) -> None:
        self.results[number].seconds = time.monotonic() - self._start_times[number]

    def _say_of_trial(self, number: int, text: str) -> None:
        self._say(f"trial {number}/{self.space.count}: {self.results[number].label}{text}")

    def _refresh(self) -> None:
        """Show the table in a notebook, where it does not refresh itself."""
        now = time.monotonic()
        if self._output is not None and now - self._shown_at > REFRESH_SECONDS:
            self._output.show(html_table(self.table()))
            self._shown_at = now

    def _say(self, line: str) -> None:
        self._refresh()
        if not (self.quiet or self._live or self._output):
            print(line, file=sys.stderr, flush=True)
