"""What happens to the trials of a sweep: shown to a person, stored in the study, sent to MLflow."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from distvae.files.untrusted import Plain
from distvae.machines.worker import request_stop
from distvae.numerics.metrics import brief, counted
from distvae.track import Sending
from distvae.track.tracker import recorded_folders
from distvae.train.progress import Mark, NotebookOutput, format_duration, in_notebook, recent_pace
from distvae.tune.mirror import Mirror
from distvae.tune.results import EndedEpoch, Result, html_table, progress_table
from distvae.tune.space import ROW, Space
from distvae.tune.study import NextTrial, OptunaStudy
from distvae.tune.trial import NO_PROGRESS, Report, TrialProgress, Trials

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from distvae.train.run_folder import Lineage

REFRESH_SECONDS = 0.5
"""Seconds between two updates of the table in a notebook."""
LINE_SECONDS = 15.0
"""Seconds between two lines about the progress of a sweep, where there is no terminal."""
LEAST_SECONDS = 5.0
"""Seconds after the first epoch until the pace of a sweep says how long the rest takes."""
MAX_PROCESSES = 4
"""A trial fails when this number of its processes have died in a row without a new epoch. An error
ends a trial at once.
"""


class SweepDisplay:
    """The results of the trials so far: a live table on a terminal or in a notebook, plain lines
    elsewhere. A quiet display shows nothing.
    """

    def __init__(self, space: Space, quiet: bool) -> None:
        self.space, self.quiet = space, quiet
        self.results: dict[int, Result] = {}
        self._start_times: dict[int, float] = {}
        self._done: dict[int, int] = {}
        """The furthest epoch of each trial, counted over its seeds."""
        self._marks: list[Mark] = []
        """Times, with the number of epochs that this process has seen by then."""
        self._told = -LINE_SECONDS
        """When the last line about the progress was printed."""
        self._live: Live | None = None
        self._output = NotebookOutput() if not quiet and in_notebook() else None
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        """Say how many trials will run, and show the table on a terminal."""
        self.say(f"{counted(self.space.count, 'trial')}, {self.space.concurrent} side by side")
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

    def say(self, line: str) -> None:
        """Print a line, unless a table is shown."""
        self._refresh()
        if not (self.quiet or self._live or self._output):
            print(line, file=sys.stderr, flush=True)

    def say_of_trial(self, number: int, text: str) -> None:
        """Print a line about a trial."""
        label = self.results[number].label(self.space.constant)
        self.say(f"trial {number}/{self.space.count}: {label}{text}")

    def take_in(self, results: Iterable[Result]) -> None:
        """Add trials that ended before the sweep was resumed."""
        self.results |= {result.number: result for result in results}

    def trial_started(
        self,
        number: int,
        values: Mapping[str, Plain],
        lineage: "Lineage | None" = None,
        progress: TrialProgress = NO_PROGRESS,
    ) -> None:
        """Show a trial that starts, that continues another trial, or that is resumed."""
        result = self.results[number] = Result.of(number, values, lineage)
        result.epoch, result.bound, result.seconds, _ = progress
        self._start_times[number] = time.monotonic() - progress.seconds
        self._done[number] = progress.seed * self.space.epochs(values) + progress.epoch
        self.say_of_trial(number, f", continues {result.origin}" if result.origin else "")

    def epoch_finished(self, number: int, ended: EndedEpoch) -> bool:
        """Show an epoch of a trial. Return whether the trial has trained further than before."""
        result, now = self.results[number], time.monotonic()
        result.epoch, result.bound, seed = ended
        self._set_seconds(number)
        self._refresh()
        done = seed * self.space.epochs(result.values) + ended.epoch
        is_new = done > self._done[number]
        if is_new:
            self._done[number] = done
            self._marks.append(Mark(now, len(self._marks)))
        if now - self._told >= LINE_SECONDS:
            self._told = now
            of_seed = f"seed {seed + 1}, " if self.space.seeds > 1 else ""
            of_trial = f"{of_seed}epoch {ended.epoch}, bound {ended.bound:.1f}"
            self.say_of_trial(number, f": {of_trial}; {self.progress()}")
        return is_new

    def trial_ended(
        self,
        number: int,
        state: Literal["finished", "failed", "halted", "stopped"],
        cause: str = "",
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Show how a trial ended, or that it was stopped and can be resumed."""
        result = self.results[number]
        result.state, result.cause, result.figures = state, cause, dict(figures or {})
        self._set_seconds(number)
        if state == "finished":
            ranked_by = [f"{name} {brief(result.figures[name])}" for name in self.space.metrics]
            text = f"{', '.join(ranked_by)}  ({format_duration(result.seconds)})"
            self.say_of_trial(number, f": {text}")
        elif state != "stopped":
            self.say_of_trial(number, f": {state}: {cause}")

    def gave_up(self) -> None:
        """Say how many trials failed, and that others were therefore not started."""
        failed = sum(result.state == "failed" for result in self.results.values())
        rest = self.space.count - len(self.results)
        others = f", and the other {rest} were not started" if rest > 0 else ""
        self.say(f"{counted(failed, 'trial')} failed{others}")

    def progress(self) -> str:
        """Return how many epochs of all trials are done, and how long the rest will take here.

        The time of an epoch includes the evaluation of trials.
        """
        done = sum(map(self._epochs_done, self.results.values()))
        total = self._epochs_in_all()
        text = f"{done:,} of {total:,} epochs in all"
        now = time.monotonic()
        if len(self._marks) < 2 or now - self._marks[0].seconds < LEAST_SECONDS:
            return text
        pace = recent_pace([*self._marks, Mark(now, self._marks[-1].done)])
        return f"{text}, about {format_duration(pace * (total - done))} left"

    def _epochs_done(self, result: Result) -> int:
        """Return the epochs of a trial that are done, or that nothing will train any more.

        The rest of a trial that a population replaces is trained by its branches.
        """
        is_branched = self.space.scheduler == "population"
        ended = ("finished",) if is_branched else ("finished", "halted", "failed")
        until = self._done.get(result.number, result.epoch)
        if result.state in ended:
            until = self.space.seeds * self.space.epochs(result.values)
        return max(0, until - result.parent_epoch)

    def _epochs_in_all(self) -> int:
        space, known = self.space, self.results.values()
        if space.scheduler == "population":
            return space.trials * space.base.train.epochs
        epochs = [space.epochs(result.values) for result in known]
        begun = {result.values.get(ROW) for result in known}
        rest = [row.config for name, row in space.rows.items() if name not in begun]
        rest = rest or [space.base] * space.count
        epochs += [config.train.epochs for config in rest[: max(0, space.count - len(epochs))]]
        return space.seeds * sum(epochs)

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

    def _refresh(self) -> None:
        """Show the table in a notebook, where it does not refresh itself."""
        now = time.monotonic()
        if self._output is not None and now - self._shown_at > REFRESH_SECONDS:
            self._output.show(html_table(self.table()))
            self._shown_at = now


@dataclass
class Recorder:
    """The trials of a sweep, and everything that is told about them."""

    trials: Trials
    study: OptunaStudy
    display: SweepDisplay
    sending: Sending
    stop: Callable[[], object]
    mirror: Mirror | None = None
    """The copy of the sweep in an object store, if one keeps it."""
    stop_requested: bool = False

    def pass_on_stop(self) -> None:
        """Ask the trials to stop if the sweep was asked to."""
        if self.stop() and not self.stop_requested:
            request_stop(self.trials.shared, self.trials.owner)
            self.stop_requested = True

    def next_trial(self) -> NextTrial | None:
        """Return the trial to start now, or None, and record the trials that it replaces."""
        trial = self.study.next_trial()
        for number, branch in self.study.losers():
            lineage = self.study.lineage(branch)
            assert lineage is not None
            self.started(number, self.study.values(number))
            result = self.display.results[number]
            result.state, result.epoch = "halted", lineage["epoch"]
            origin = f"by {branch}, of {lineage['parent']}"
            result.cause = f"replaced at epoch {lineage['epoch']} {origin}"
            self.display.say_of_trial(number, f": {result.cause}")
            self._record_halted(result)
        return trial

    def _record_halted(self, result: Result) -> None:
        self.trials.close_records(result.number, result.values, "KILLED")
        self._notify(result.number)
        self.study.record_result(result)

    def fetch(self, number: int) -> None:
        """Copy here what an object store keeps of a trial."""
        if self.mirror:
            self.mirror.pull(f"trials/{number}")

    def should_stop(self, number: int, epochs: Sequence[EndedEpoch], sent: bool) -> bool:
        """Return whether the scheduler stops a trial, whose judgments may have been sent."""
        if sent:
            self.fetch(number)
        return self.study.should_stop(number, epochs)

    def _notify(self, number: int) -> None:
        """Have MLflow told of a trial, or of each of its seeds."""
        for folder in recorded_folders(self.trials.folder_of(number)):
            self.sending.notify(folder)

    def started(self, number: int, values: Mapping[str, Plain]) -> None:
        """Show a trial that this process starts or resumes for the first time."""
        if number not in self.display.results:
            lineage = self.study.lineage(number)
            before = self.trials.progress(number, values, lineage)
            self.display.trial_started(number, values, lineage, before)

    def recovered(self, number: int, values: Mapping[str, Plain]) -> None:
        """Show a trial whose process died, and which another process continues."""
        self.fetch(number)
        self.started(number, values)
        epoch = self.display.results[number].epoch
        text = f": its process died at epoch {epoch}; another continues it"
        self.display.say_of_trial(number, text)

    def trained(self, number: int, epochs: Sequence[EndedEpoch]) -> bool:
        """Show epochs, and have MLflow told. Return whether an epoch is new."""
        new = [self.display.epoch_finished(number, ended) for ended in epochs]
        self._notify(number)
        return any(new)

    def ended(self, number: int, last: Report, node: str) -> None:
        """Record how a trial ended, unless it was asked to stop and can be resumed."""
        self.fetch(number)
        result = self.display.results[number]
        result.node = node
        if "paused" in last:
            self.study.pause(number)
        elif "stopped" in last:
            self.display.trial_ended(number, "stopped")
        elif "figures" in last:
            self.display.trial_ended(number, "finished", figures=last["figures"])
            self.study.record_result(result)
        elif "failure" in last:
            self.display.trial_ended(number, "failed", last["failure"])
            self.study.record_result(result)
        else:
            cause = f"worse than others by epoch {result.epoch}"
            self.display.trial_ended(number, "halted", cause)
            self._record_halted(result)
        if self.mirror:
            self.mirror.push()

    def died(self, number: int) -> None:
        """Record a trial whose last process died."""
        cause = f"its process died {MAX_PROCESSES} times without a new epoch; too little memory?"
        self.display.trial_ended(number, "failed", cause)
        self.study.record_result(self.display.results[number])

    def interrupted(self) -> None:
        """Show the progress of trials that began, in any process, and did not end.

        A trial that Tune requested ahead has no folder, and did not begin.
        """
        for number in self.study.unended:
            values, lineage = self.study.values(number), self.study.lineage(number)
            if self.trials.folder_of(number).exists():
                progress = self.trials.progress(number, values, lineage)
                begun = Result.of(number, values, lineage)
                begun.seconds = progress.seconds
                result = self.display.results.setdefault(number, begun)
                result.state, result.epoch, result.bound = "stopped", progress.epoch, progress.bound

    def __getstate__(self) -> dict[str, object]:
        """Leave everything out of the pickle that Tune writes and never reads."""
        return {}
