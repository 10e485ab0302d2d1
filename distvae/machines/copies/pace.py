"""Choice of the number of blocks from one point of the copies to the next."""

import time

import torch

from distvae.train.team import Team

POINT_SECONDS = 0.5
"""Seconds from one point to the next, about. A block that takes longer has a point at its end."""


class Pace:
    """Chooses at which ends of blocks the workers send their state.

    A message costs a worker and its keepers some milliseconds, however little it says. Short blocks
    are therefore sent several at a time. The first worker's clock decides for all workers. Where
    the points are has no influence on what is trained.
    """

    def __init__(self, team: Team, seconds: float) -> None:
        self.team, self.seconds = team, seconds
        self.blocks = self.blocks_left = 1
        """Blocks from the last point to the next, and those that are left of them."""
        self.began = time.monotonic()

    def is_point(self) -> bool:
        """Return whether the end of this block is a point. All workers call it, at each end."""
        self.blocks_left -= 1
        if self.blocks_left > 0:
            return False
        self.blocks = self.blocks_left = self._agree_on_blocks()
        self.began = time.monotonic()
        return True

    def _agree_on_blocks(self) -> int:
        """Return the blocks to the next point: at most twice as many as to this one, or half."""
        seconds = max(time.monotonic() - self.began, 1e-6)
        wanted = int(self.blocks * self.seconds / seconds)
        chosen = torch.tensor(min(max(wanted, self.blocks // 2, 1), 2 * self.blocks))
        if self.team.rank > 0:
            chosen.zero_()
        self.team.sum([chosen])
        return int(chosen)
