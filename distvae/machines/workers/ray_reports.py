"""Reports to Ray Train that training goes on.

The run folder has all records, so Ray needs few reports. It takes a report in only when it looks at
its workers, and a worker waits for that: at every epoch this would take longer than a short epoch.
"""

import os
import time
from collections.abc import Callable

from distvae.config.schema import check_value
from distvae.config.values import NonNegative
from distvae.machines.session import STALL_SECONDS, STALL_VARIABLE
from distvae.train.team import Team

REPORT_SECONDS = 5.0
"""Seconds between two reports."""
VARIABLE = "DISTVAE_REPORT_SECONDS"
"""An environment variable with other seconds; 0: a report at each epoch."""


def report_seconds() -> float:
    """Return the seconds between two reports that this process is told, or else the usual ones."""
    return float(check_value(VARIABLE, NonNegative, os.environ.get(VARIABLE, REPORT_SECONDS)))


def stall_seconds() -> float:
    """Return the seconds after which workers are restarted of which one does not answer."""
    named = os.environ.get(STALL_VARIABLE, STALL_SECONDS)
    return float(check_value(STALL_VARIABLE, NonNegative, named))


class RayReports:
    """The reports of a team. All workers report at the same epochs, because Ray makes them meet."""

    def __init__(
        self,
        team: Team,
        report: Callable[[int], object],
        interval: float = REPORT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.team, self.report, self.clock = team, report, clock
        self.interval = interval
        self.reported, self.last_epoch = clock(), 0
        """When the last report was sent, and the epoch that it told of."""

    def epoch_ended(self, epoch: int) -> None:
        """Report an epoch if the last report is long ago, by the first worker's clock."""
        if self.team.gather(self.clock() - self.reported >= self.interval)[0]:
            self._send(epoch)

    def training_ended(self, epoch: int) -> None:
        """Report the last epoch, if that was not done."""
        if epoch > self.last_epoch:
            self._send(epoch)

    def _send(self, epoch: int) -> None:
        self.report(epoch)
        self.reported, self.last_epoch = self.clock(), epoch
