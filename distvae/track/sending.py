"""A thread that sends to MLflow the parts of folders that MLflow lacks. Training never waits for
it.
"""

import math
import os
import sys
import threading
import time
from pathlib import Path

from distvae.files.program import is_installed
from distvae.files.refusal import Refusal
from distvae.track.record import RECORD
from distvae.track.sender import Sender
from distvae.track.store import Store, error_summary, import_mlflow, without_secrets

MIN_PAUSE, MAX_PAUSE = 0.5, 5.0
"""Seconds between two rounds of sending."""
SHARE = 0.05
"""The share of time spent on sending. `MAX_PAUSE` limits a pause."""
PATIENCE = 60.0
"""At the end of training, sending stops after this many seconds without an answer from MLflow."""


class Sending:
    """A thread that sends the folders of a run or sweep. It reports each failure once."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.complete = True
        """Whether MLflow had everything at the end of the last round."""
        self._senders: dict[Path, Sender] = {}
        self._changed: set[Path] = set()
        self._said: set[Path] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._answered = math.inf

    def notify(self, folder: Path) -> None:
        """Request to send a changed folder soon. The first request imports MLflow."""
        if not is_installed("mlflow"):
            self._say(folder, "the package mlflow is not installed")
            return
        self._changed.add(folder)
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait until everything has been sent, as long as MLflow answers."""
        self._over.set()
        thread, self._thread = self._thread, None
        self._answered = max(self._answered, time.monotonic())
        while thread and thread.is_alive():
            thread.join(0.1)
            if time.monotonic() > self._answered + PATIENCE:
                self._say(self.folder, f"no answer for {PATIENCE:.0f} seconds")
                self.complete = False
                return

    def __getstate__(self) -> dict[str, object]:
        """Return nothing. Tune pickles its callbacks without reading them back."""
        return {}

    def _run(self) -> None:
        pause = MIN_PAUSE
        while not self._over.wait(pause):
            pause = min(max(MIN_PAUSE, self._round() / SHARE), MAX_PAUSE)
        self._round()

    def _round(self) -> float:
        """Send the changed folders until MLflow fails, and return the duration in seconds."""
        began = time.monotonic()
        self.complete = True
        for folder in sorted(self._changed, reverse=True):  # a sweep after its trials
            self._changed.discard(folder)
            try:
                self._send(folder)
            except Exception as error:
                if not folder.is_dir():  # the folder has been deleted
                    continue
                if isinstance(error, Refusal):
                    self._say(folder, str(error))
                    continue
                self._changed.add(folder)
                self._say(self.folder, error_summary(error))
                break
        return time.monotonic() - began

    def _send(self, folder: Path) -> None:
        """Send one folder. Importing MLflow takes seconds without an answer."""
        self._answered = math.inf
        import_mlflow()
        self._answered = time.monotonic()
        for _ in self._senders.setdefault(folder, Sender(self.store, folder)).send():
            self._answered = time.monotonic()

    def _say(self, folder: Path, reason: str) -> None:
        self.complete = False
        if folder not in self._said:
            self._said.add(folder)
            print(
                f"{folder.name}: recording in MLflow at {without_secrets(self.store.uri)} fails:"
                f" {reason.rstrip('.')}. Nothing else is affected; 'distvae runs --send {folder}'"
                " sends it later.",
                file=sys.stderr,
            )


def recorded_folders(root: Path) -> list[Path]:
    """Return the folders below a root that have a record."""
    return sorted(Path(place) for place, _, files in os.walk(root) if RECORD in files)
