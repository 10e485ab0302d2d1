"""Retry a store that fails after a pause, and report each failure once."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from distvae.track.store import Store, error_summary, without_secrets

PAUSE = 20
"""The pause after a failure, as a multiple of the time that the attempt took."""


class Retries:
    """Attempts that never raise. The first failure is printed, and the first success after it."""

    def __init__(self, failure: str, consequence: str, recovery: str) -> None:
        self.failure, self.consequence, self.recovery = failure, consequence, recovery
        self.failing = False
        """Whether the last attempt failed."""
        self._next_attempt = 0.0

    @classmethod
    def sending(cls, folder: Path, store: Store | None) -> Self:
        """Return the attempts to send the journal of a folder."""
        uri = without_secrets(store.uri) if store else ""
        return cls(
            f"{folder.name}: recording in MLflow at {uri} fails",
            f"Everything is kept in {folder}, and 'distvae sync {folder}' sends it; nothing else is"
            " affected.",
            f"{folder.name}: MLflow has everything now.",
        )

    @property
    def resting(self) -> bool:
        """True while it is too soon for another attempt."""
        return time.monotonic() < self._next_attempt

    def attempt(self, action: Callable[[], object]) -> bool:
        """Run an action, and return whether it succeeded."""
        start = time.monotonic()
        try:
            action()
        except Exception as error:
            now = time.monotonic()
            self._next_attempt = now + PAUSE * (now - start)
            if not self.failing:
                reason = error_summary(error).rstrip(".")
                print(f"{self.failure}: {reason}. {self.consequence}", file=sys.stderr)
            self.failing = True
            return False
        self._next_attempt = 0.0
        if self.failing:
            print(self.recovery, file=sys.stderr)
        self.failing = False
        return True
