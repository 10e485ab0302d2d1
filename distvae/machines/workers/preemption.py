"""Notices that machines are about to be taken away, as cloud providers do with spot machines."""

import time
from collections.abc import Callable

from distvae.train.team import Team


class PreemptionNotices:
    """A callable that asks Ray for notices about every `every` seconds.

    All workers of a team call it at the same times, and all ask Ray at the same call.
    """

    every = 5.0

    def __init__(
        self,
        team: Team,
        ask: Callable[[], frozenset[str]],
        report: Callable[[frozenset[str]], object],
    ) -> None:
        self.team, self.ask, self.report = team, ask, report
        self.announced = frozenset[str]()
        self.calls, self.calls_until_ask = 0, 1
        self.last_asked = time.monotonic()

    def __call__(self) -> bool:
        """Return whether another machine will be taken away; the same on all workers."""
        self.calls += 1
        if self.calls < self.calls_until_ask:
            return False
        self._schedule_next_ask()
        preempted = self.ask()
        fresh = preempted - self.announced
        self.announced = preempted
        if fresh:
            self.report(fresh)
        return bool(fresh)

    def _schedule_next_ask(self) -> None:
        """Choose the number of calls until Ray is asked again, by the first worker's clock."""
        passed = self.team.gather(time.monotonic() - self.last_asked)[0]
        calls = max(int(self.calls * self.every / max(passed, 1e-3)), 1)
        self.calls_until_ask = min(calls, 2 * self.calls_until_ask)
        self.calls = 0
        self.last_asked = time.monotonic()


def preempted_nodes() -> frozenset[str]:
    """Return the machines of this training that Ray was told will be taken away.

    All workers have to call it together.
    """
    from ray.train import get_preemption_info

    info = get_preemption_info()
    return frozenset(info.preempted_node_ids if info else ())
