"""Word that machines are about to be taken away, as spot machines are: it is asked for by all
workers together.
"""

import time
from collections.abc import Callable

from distvae.train.team import Team


class Notices:
    """Asks about every `every` seconds, after as many calls on all workers, and tells what is
    new.
    """

    every = 5.0

    def __init__(
        self,
        team: Team,
        ask: Callable[[], frozenset[str]],
        tell: Callable[[frozenset[str]], object],
    ) -> None:
        self.team, self.ask, self.tell = team, ask, tell
        self.known = frozenset[str]()
        self.calls, self.due, self.since = 0, 1, time.monotonic()

    def __call__(self) -> bool:
        """Whether a machine will leave of which that was not known; the same on all workers."""
        self.calls += 1
        if self.calls < self.due:
            return False
        passed = self.team.gather(time.monotonic() - self.since)[0]
        soon = int(self.calls * self.every / max(passed, 1e-3))
        self.calls, self.due, self.since = 0, min(max(soon, 1), 2 * self.due), time.monotonic()
        leaving = self.ask()
        fresh, self.known = leaving - self.known, leaving
        if fresh:
            self.tell(fresh)
        return bool(fresh)


def leaving() -> frozenset[str]:
    """The machines of this training that Ray was told will be taken away; all workers ask
    together.
    """
    from ray.train import get_preemption_info

    info = get_preemption_info()
    return frozenset(info.preempted_node_ids if info else ())
