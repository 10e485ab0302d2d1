"""Workers that carry out the tasks of an ingest: processes of this machine, or others like them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distvae.data.tables.plan import Plan
from distvae.data.tables.processes import start_processes
from distvae.data.tables.work import Task, Work
from distvae.files.memory import require_memory
from distvae.system.memory import available_memory
from distvae.system.processors import available_cores

WORTH_A_PROCESS = 2**26
"""Bytes of rows for which a process is started."""


class Pool(Protocol):
    """Processes that have been started."""

    def results(self, tasks: Sequence[Task]) -> Iterator[int]:
        """Do all tasks; yield the number of rows of each as it is done."""


class Workers(Protocol):
    """Processes that carry out an ingest. The files do not depend on them."""

    def check(self, plan: Plan, out: Path) -> None:
        """Refuse what cannot be carried out, before anything is written."""

    def start(self, work: Work, tasks: int) -> AbstractContextManager[Pool]:
        """Start processes for as many tasks at once as there are, and end them with the block."""


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine."""

    count: int | None = None
    """None for one on each core, if there is work and memory for them."""

    def check(self, plan: Plan, out: Path) -> None:
        """Refuse more processes than there is memory for."""
        count = self.count or 1
        where = "one process" if count == 1 else f"{count} processes"
        what = f"rows of {plan.values:,} values in {where}"
        require_memory(plan.sources[0].path, count * plan.memory, what)

    def start(self, work: Work, tasks: int) -> AbstractContextManager[Pool]:
        """Start the processes; one process is this one."""
        return start_processes(work.do, min(self.count or _fitting(work.plan), tasks))


def _fitting(plan: Plan) -> int:
    """Return for how many processes there are cores, memory and work."""
    worth = max(1, 4 * plan.values * plan.rows // WORTH_A_PROCESS)
    return min(available_cores(), available_memory() // plan.memory, worth)
