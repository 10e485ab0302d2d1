"""Run the trials of a sweep in stacks: each process of this machine trains several at once.

The sweep's process asks Optuna for trials ahead, groups them by shape, and gives each process
trials of one shape. When one ends or is halted, the next of that shape takes its place.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from distvae.files.refusal import Refusal, shown
from distvae.tune.optuna_study import NextTrial
from distvae.tune.pictures import undrawn_runs
from distvae.tune.recorder import MAX_PROCESSES, Recorder
from distvae.tune.resources import TrialResources
from distvae.tune.results import rank
from distvae.tune.space import Space
from distvae.tune.stacks.forked import start_process
from distvae.tune.stacks.pictures import draw_in_processes
from distvae.tune.stacks.process import Orders, StackReport, run_stack
from distvae.tune.stacks.shape import Shape, count_fitting, stack_shape

AUTOMATIC = 4
"""Trials of a stack, unless told: more of them gain nothing on a processor."""
MAX_STACK = 64
"""The most trials of a stack."""
LOOK_SECONDS = 0.3
"""Seconds between two looks whether the sweep was asked to stop."""
AHEAD = 4
"""Stacks of trials that are asked for ahead, if they do not depend on how others ended."""


def parse_stack(text: str | None) -> int | None:
    """Return the trials of a stack by the option of the command line; None for no stacks."""
    if text is None:
        return None
    if text == "auto":
        return AUTOMATIC
    if text.isdecimal() and 1 <= int(text) <= MAX_STACK:
        return int(text)
    raise Refusal(
        f"--stack: {shown(text)}; auto, or a number of trials from 1 to {MAX_STACK}, expected"
    )


def resources_of_stacks(space: Space, resources: TrialResources) -> TrialResources:
    """Return the resources of trials that train in stacks, which is on the CPU of this machine.

    Raise `Refusal` if others were asked for.
    """
    options = {
        "--workers": resources.group is not None,
        "--address": resources.address is not None,
        "--gpus-per-trial": bool(resources.gpus),
    }
    for option, given in options.items():
        if given:
            raise Refusal(
                f"--stack: trains several trials in each process, on the CPU of this machine; no"
                f" {option} expected"
            )
    if space.base.train.device == "cuda":
        raise Refusal("--stack: trains on the CPU; train.device=cpu, or auto, expected")
    return replace(resources, gpus=0.0)


@dataclass
class Process:
    """A process that trains a stack, and the trials that it has."""

    process: BaseProcess
    connection: Connection
    members: dict[int, NextTrial] = field(default_factory=dict)
    shape: Shape | None = None
    alone: bool = False
    """Whether it trains a trial whose process died, which gets no company."""
    waits: bool = False
    """Whether it has nothing to do, and waits for the answer to its last report."""


class StackedSweep:
    """The processes of a sweep, and the trials that wait for them."""

    def __init__(self, recorder: Recorder, size: int, processes: int) -> None:
        self.recorder, self.size, self.count = recorder, size, processes
        self.space = recorder.trials.space
        self.processes: list[Process] = []
        self.waiting: list[NextTrial] = []
        self.shapes: dict[int, Shape | None] = {}
        self.orphans: list[NextTrial] = []
        """Trials whose process died: each goes on alone, so that one cannot end others again."""
        self.deaths: dict[int, int] = {}
        """How many processes of a trial died."""
        self.exhausted = False
        """Whether there are no more trials to ask for."""
        self.idle_deaths = 0
        """How many processes died before they had a trial."""

    def run(self) -> None:
        """Run trials until all have ended or were asked to stop, and draw what the report shows."""
        try:
            for _ in range(self.count):
                self._start_process()
            self._train()
            self._draw()
        finally:
            for process in self.processes:
                process.process.kill()

    def _train(self) -> None:
        """Serve the processes until none has anything to do."""
        while not all(process.waits for process in self.processes):
            self.recorder.pass_on_stop()
            patience = 0 if self._wants_more(AHEAD) else LOOK_SECONDS
            ready = wait([each.connection for each in self.processes], patience)
            if not ready and patience == 0:
                self._ask()
            for process in list(self.processes):
                if process.connection in ready:
                    self._serve(process)

    def _draw(self) -> None:
        """Have pictures drawn by all processes at once; those that fail are drawn later."""
        recorder = self.recorder
        ranked = rank([*recorder.display.results.values()], self.space.metrics)
        runs = undrawn_runs(recorder.trials, ranked)
        recorder.display.draws(0 if recorder.stop() else len(runs))
        draw_in_processes([each.connection for each in self.processes], runs, recorder.stop)

    def _start_process(self) -> None:
        self.processes.append(Process(*start_process(run_stack, self.recorder.trials)))

    def _serve(self, process: Process) -> None:
        """Record what a process reports, and say what it shall do."""
        try:
            reports: Mapping[int, StackReport] = process.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(process)
            return
        known = {number: each for number, each in reports.items() if number in process.members}
        for number in reports.keys() - known.keys():
            if "figures" in (reports[number].last or {}):
                self.recorder.ended_though_halted(number)
        halted = [number for number, report in known.items() if self._record(number, report)]
        for number in [*halted, *(n for n, report in known.items() if report.last)]:
            del process.members[number]
        process.waits = all(report.last for report in reports.values())
        self._answer(process, halted)
        if any(report.last for report in known.values()):
            self._wake()

    def _wake(self) -> None:
        """Ask processes that have nothing to do whether there is something now."""
        for process in self.processes:
            if process.waits:
                self._answer(process, [])

    def _answer(self, process: Process, halted: list[int]) -> None:
        """Say which trials a process shall begin and halt, or let one wait that has none.

        Others do not wait: their reports are answered even if there is nothing to say.
        """
        begun = self.choose(process)
        for trial in begun:
            process.members[trial.number] = trial
            self._show_start(trial)
        process.waits = process.waits and not process.members
        if process.waits:
            return
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is found next
            process.connection.send(Orders(begun, halted))

    def _record(self, number: int, report: StackReport) -> bool:
        """Record a report of a trial, and return whether the trial is to be halted."""
        recorder = self.recorder
        if report.alone:
            recorder.display.trains_alone(number)
        if recorder.trained(number, report.epochs):
            self.deaths.pop(number, None)
        if report.last is not None:
            recorder.ended(number, report.last, "")
            return False
        if not report.epochs or not recorder.study.should_stop(number, report.epochs):
            return False
        recorder.ended(number, {}, "")
        return True

    def _show_start(self, trial: NextTrial) -> None:
        if trial.number in self.deaths:
            self.recorder.recovered(trial.number, trial.values)
        else:
            self.recorder.started(trial.number, trial.values)

    def choose(self, process: Process) -> list[NextTrial]:
        """Return the trials that a process begins now."""
        full = len(process.members) == (1 if process.alone else self.size)
        if full or self.recorder.stop():
            return []
        if self.orphans and not process.members:
            process.alone = True
            return [self.orphans.pop(0)]
        process.alone = False
        while self._wants_more(1):
            self._ask()
        if not self.waiting:
            return []
        if not process.members:
            process.shape = self._shape(self.waiting[0])
        group = [trial for trial in self.waiting if self._shape(trial) == process.shape]
        chosen = group[: self._room(process, group)] if group else []
        self.waiting = [trial for trial in self.waiting if trial not in chosen]
        return chosen

    def _room(self, process: Process, group: Sequence[NextTrial]) -> int:
        """Return how many of a group a process takes; idle processes share it equally.

        What has no room in memory waits; a single trial is refused by its training, not here.
        """
        fitting = self._fitting(group[0])
        if process.members:
            return min(self.size - len(process.members), fitting)
        idle = sum(not other.members for other in self.processes)
        return min(self.size, ceil(len(group) / idle), max(fitting, 1))

    def _fitting(self, trial: NextTrial) -> int:
        """Return how many trials like this one have room in memory beside what trains now."""
        with suppress(Refusal, OSError):
            return count_fitting(self.space.config(trial.values))
        return 1  # its training will say what is wrong

    def _wants_more(self, stacks: int) -> bool:
        """Return whether there are fewer trials than so many stacks for each process.

        Of trials that depend on how others ended, one stack for each is all that is asked for; so
        it is until a trial has finished, because if all fail the others are not to begin.
        """
        if self.exhausted or self.recorder.stop():
            return False
        begun = sum(len(process.members) for process in self.processes)
        wanted = self.size * len(self.processes) * (stacks if self._asks_ahead() else 1)
        return begun + len(self.waiting) < wanted and not self.recorder.study.waits

    def _asks_ahead(self) -> bool:
        """Return whether the next trials do not depend on how those before end."""
        results = self.recorder.display.results.values()
        known = self.space.search in ("grid", "random") and self.space.scheduler == "none"
        return known and any(result.state == "finished" for result in results)

    def _ask(self) -> None:
        """Ask for a trial ahead."""
        trial = self.recorder.next_trial()
        if trial is not None:
            self.waiting.append(trial)
        elif not self.recorder.study.waits:
            self.exhausted = True

    def _shape(self, trial: NextTrial) -> Shape | None:
        """Return the shape of a trial; None for settings that training will refuse."""
        if trial.number not in self.shapes:
            self.shapes[trial.number] = None
            with suppress(Refusal):
                self.shapes[trial.number] = stack_shape(self.space.config(trial.values))
        return self.shapes[trial.number]

    def _bury(self, process: Process) -> None:
        """Let the trials of a process that died go on, each in a process of its own."""
        self.processes.remove(process)
        self.idle_deaths += not process.members
        if self.idle_deaths == MAX_PROCESSES:
            raise Refusal(
                f"--stack: {MAX_PROCESSES} processes ended before they trained, as they say above;"
                " in a script, run_sweep below 'if __name__ == \"__main__\":' expected"
            )
        for number, trial in process.members.items():
            self.deaths[number] = self.deaths.get(number, 0) + 1
            if self.deaths[number] < MAX_PROCESSES:
                self.orphans.append(trial)
            else:
                self.recorder.died(number)
        if not self.recorder.stop():
            self._start_process()
        self._wake()
