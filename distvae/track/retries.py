"""With a store that fails: it is asked again after a while, and what is wrong is said once."""

import sys
import time
from collections.abc import Callable

from distvae.track.store import error_summary

REST = 20  # a store that failed is asked again after so many times what that took


class Retries:
    """Tries, of which none raises."""

    def __init__(self, failed: str, kept: str, well: str) -> None:
        self.failed, self.kept, self.well = failed, kept, well
        self.failing = False
        """Whether the last try failed."""
        self._again = 0.0

    @property
    def resting(self) -> bool:
        """Whether it is too soon to try again."""
        return time.monotonic() < self._again

    def attempt(self, action: Callable[[], object]) -> bool:
        """Whether that went well; the first failure is said, and the first success after it."""
        began = time.monotonic()
        try:
            action()
        except Exception as error:
            self._again = time.monotonic() + REST * (time.monotonic() - began)
            if not self.failing:
                print(f"{self.failed}: {error_summary(error)}. {self.kept}", file=sys.stderr)
            self.failing = True
            return False
        self._again = 0.0
        if self.failing:
            print(self.well, file=sys.stderr)
        self.failing = False
        return True
