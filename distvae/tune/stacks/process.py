"""A process that trains some trials at once: their steps are taken together.

It is told by the sweep's process which trials to begin and which to halt, and reports to it.
"""

import platform
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from distvae.tune.optuna_study import NextTrial
from distvae.tune.pictures import draw_and_log
from distvae.tune.results import REPORT_SECONDS, EndedEpoch
from distvae.tune.stacks.forked import SIGNALS
from distvae.tune.trial import Report, TrialRun, Trials, run_trial_in_steps

if TYPE_CHECKING:
    from distvae.train.step import Ascent, Step


class StackReport(NamedTuple):
    """Events of a trial since the last report."""

    epochs: list[EndedEpoch]
    last: Report | None = None
    """How the trial ended, if it has."""
    alone: bool = False
    """Whether its model has no stacked form."""


class Orders(NamedTuple):
    """Orders to a process, in answer to a report."""

    begin: Sequence[NextTrial] = ()
    halt: Sequence[int] = ()
    draw: TrialRun | None = None
    """The run whose pictures are to be drawn."""


@dataclass
class Member:
    """A trial that this process trains."""

    events: "Generator[Report | Step, None, None]"
    step: "Step | None" = None
    """The step that is to be taken next."""
    ascent: "Ascent | None" = None
    """The object that takes the steps of the training that goes on."""
    epochs: list[EndedEpoch] = field(default_factory=list)
    """Epochs that are not reported yet."""
    last: Report | None = None
    alone: bool = False

    def advance(self) -> None:
        """Train until a step is to be taken, or until the end."""
        from distvae.train.step import Step

        for event in self.events:
            if isinstance(event, Step):
                self._prepare(event)
                return
            if "epoch" in event:
                self.epochs.append(EndedEpoch(event["epoch"], event["bound"], event["seed"]))
            else:
                self.last = event
                return

    def _prepare(self, step: "Step") -> None:
        """Remember a step; the first one of a training says whether others can be taken with it."""
        from distvae.train.together import can_stack

        if step.ascent is not self.ascent:
            self.ascent, self.alone = step.ascent, not can_stack(step)
        self.step = step

    def report(self) -> StackReport:
        """Return what happened since the last report."""
        epochs, self.epochs = self.epochs, []
        return StackReport(epochs, self.last, self.alone)


class TrialStack:
    """The trials that this process trains."""

    def __init__(self, trials: Trials) -> None:
        from distvae.train.together import Together

        self.trials, self.together = trials, Together()
        self.members: dict[int, Member] = {}

    def follow(self, orders: Orders) -> None:
        """Begin and halt trials."""
        for number in orders.halt:
            if member := self.members.pop(number, None):  # else it ended meanwhile
                member.events.close()
        for trial in orders.begin:
            self.members[trial.number] = Member(run_trial_in_steps(self.trials, *trial))

    def advance(self) -> None:
        """Bring each trial to its next step.

        A trial whose model has no stacked form is trained before the others go on.
        """
        for member in self.members.values():
            if member.step is None:
                member.advance()
            if member.alone:
                break

    def take(self) -> None:
        """Take the steps that the trials were brought to."""
        due = [member for member in self.members.values() if member.step]
        if due:
            self.together.take([member.step for member in due if member.step])
        for member in due:
            member.step = None

    def train(self) -> None:
        """Train until there is something to report.

        The next steps are not taken then, so that a trial that begins now takes its first one with
        the others.
        """
        deadline = time.monotonic() + REPORT_SECONDS
        while True:
            self.advance()
            members = self.members.values()
            waiting = any(member.epochs for member in members) and time.monotonic() > deadline
            if waiting or any(member.last for member in members):
                return
            self.take()

    def reports(self) -> Mapping[int, StackReport]:
        """Return what happened since the last reports; trials that have ended leave."""
        found = {number: member.report() for number, member in self.members.items()}
        for number, report in found.items():
            if report.last:
                del self.members[number]
        return found

    def close(self) -> None:
        """Close all trials."""
        for member in self.members.values():
            member.events.close()


class Conversation:
    """Conversation of this process with that of the sweep: every report has an answer.

    This process waits for one only if a trial has ended, or if it has none. One whose last trial is
    halted by the answer to an earlier report says that it has none, and waits for the next.
    """

    def __init__(self, stack: TrialStack, connection: Connection) -> None:
        self.stack, self.connection = stack, connection
        self.unanswered = 0
        self.drawn_next: TrialRun | None = None

    def go_on(self) -> None:
        """Report and follow orders until the sweep's process ends."""
        while True:
            self._report()
            if self.drawn_next:
                draw_and_log(self.drawn_next)
            elif self.stack.members:
                self.stack.train()

    def _report(self) -> None:
        """Report, and follow the orders that have come."""
        reports, self.drawn_next = self.stack.reports(), None
        waits = not self.stack.members or any(report.last for report in reports.values())
        self.connection.send(reports)
        self.unanswered += 1
        while self.unanswered and (waits or self.connection.poll()):
            orders: Orders = self.connection.recv()
            self.unanswered -= 1
            self.stack.follow(orders)
            self.drawn_next = orders.draw


def run_stack(trials: Trials, connection: Connection) -> None:
    """Train the trials that the sweep's process names, until it ends.

    What was trained is in the folders of the trials.
    """
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the sweep's process asks trials to stop
    place = {"node": platform.node(), "gpus": ""}
    stack = TrialStack(replace(trials, place=place, gpus=()))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Conversation(stack, connection).go_on()
    stack.close()
