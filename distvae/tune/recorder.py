"""Record what happens to trials: in the ledger of the sweep, on the screen, and for MLflow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from distvae.files.plain import Plain
from distvae.files.storage import Folder
from distvae.machines.stop_files import request_stop
from distvae.track import Sending, Status
from distvae.track.record import read_record
from distvae.tune.display import SweepDisplay
from distvae.tune.optuna_study import NextTrial, OptunaStudy
from distvae.tune.progress import read_progress
from distvae.tune.results import EndedEpoch, Result
from distvae.tune.trial import Report, TrialRun, Trials

MAX_PROCESSES = 4
"""Processes of a trial that die one after the other without a new epoch before it has failed. An
error ends a trial at once.
"""


@dataclass
class Recorder:
    """The trials of a sweep, and everything that is told about them."""

    trials: Trials
    study: OptunaStudy
    display: SweepDisplay
    sending: Sending
    stop: Callable[[], object]
    stop_requested: bool = False
    furthest: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The latest seed and epoch of each trial."""
    halting: set[int] = field(default_factory=set)
    """Trials that were halted, and whose processes have yet to close their records."""

    def pass_on_stop(self) -> None:
        """Ask the trials to stop if the sweep was asked to."""
        if self.stop() and not self.stop_requested:
            request_stop(Folder(self.trials.folder), self.trials.owner)
            self.stop_requested = True

    def next_trial(self) -> NextTrial | None:
        """Return the next trial, if there is one now, and record those that were replaced."""
        trial = self.study.next_trial()
        for loser, branch in self.study.losers():
            self._replaced(loser, branch)
        return trial

    def _replaced(self, number: int, branch: int) -> None:
        """Record that a branch of a better trial takes the place of a trial."""
        lineage = self.study.lineage(branch)
        assert lineage is not None
        self.started(number, self.study.values(number))
        result = self.display.results[number]
        result.state, result.epoch = "halted", lineage["epoch"]
        result.cause = f"replaced at epoch {lineage['epoch']} by {branch}, of {lineage['parent']}"
        self.display.trial_replaced(result)
        close_records(self.trials, number, result.values, "KILLED")
        self.sending.notify(self.trials.folder_of(number))
        self.study.record_result(result)

    def started(self, number: int, values: Mapping[str, Plain]) -> None:
        """Show a trial that starts, or that goes on, for the first time in this process."""
        if number not in self.display.results:
            lineage = self.study.lineage(number)
            before = read_progress(self.trials, number, values, lineage)
            self.display.trial_started(number, values, lineage, before.seconds)

    def interrupted(self) -> None:
        """Show trials that began, in this process or before, and did not end: as far as they came.

        Those that were asked for ahead have no folder, and did not begin.
        """
        for number in self.study.unended:
            values, lineage = self.study.values(number), self.study.lineage(number)
            if self.trials.folder_of(number).exists():
                progress = read_progress(self.trials, number, values, lineage)
                self.display.trial_interrupted(Result.of(number, values, lineage), progress)

    def recovered(self, number: int, values: Mapping[str, Plain]) -> None:
        """Show a trial that continues in another process."""
        self.started(number, values)
        self.display.trial_recovered(number)

    def trained(self, number: int, epochs: Sequence[EndedEpoch]) -> bool:
        """Show epochs, and have MLflow told. Return whether one of them is new."""
        for ended in epochs:
            self.display.epoch_finished(number, ended)
        before = self.furthest.get(number, (0, 0))
        self.furthest[number] = max([before, *((ended.seed, ended.epoch) for ended in epochs)])
        closed = {each for each in self.halting if self._is_closed(each)}
        self.halting -= closed
        for each in (number, *closed):
            self.sending.notify(self.trials.folder_of(each))
        return self.furthest[number] > before

    def _is_closed(self, number: int) -> bool:
        values = self.display.results[number].values
        return not open_runs(self.trials, number, values)

    def ended(self, number: int, last: Report, node: str) -> None:
        """Record how a trial ended, unless it was asked to stop and can be resumed."""
        self.display.results[number].node = node
        if "stopped" in last:
            self.display.trial_stopped(number)
            return
        if "paused" in last:
            self.study.pause(number)
            return
        if "figures" in last:
            self.display.trial_finished(number, last["figures"])
        elif "failure" in last:
            self.display.trial_failed(number, last["failure"])
        else:
            self.display.trial_halted(number)
            self.halting.add(number)
        self.study.record_result(self.display.results[number])

    def died(self, number: int) -> None:
        """Record a trial whose last process died."""
        cause = f"its process died {MAX_PROCESSES} times without a new epoch; too little memory?"
        self.display.trial_failed(number, cause)
        self.study.record_result(self.display.results[number])

    def __getstate__(self) -> dict[str, object]:
        """Leave everything out of the pickle that Tune writes and never reads."""
        return {}


def open_runs(trials: Trials, number: int, values: Mapping[str, Plain]) -> list[TrialRun]:
    """Return the runs of a trial that have begun and whose records have not ended."""
    runs = trials.runs(number, values)
    begun = [run for run in runs if run.folder.exists()]
    return [run for run in begun if "status" not in read_record(run.folder)]


def close_records(trials: Trials, number: int, values: Mapping[str, Plain], status: Status) -> None:
    """Close the records of a trial that its process has not closed."""
    for run in open_runs(trials, number, values):
        run.tracker().close(status)
