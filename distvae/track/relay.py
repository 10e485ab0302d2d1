"""Send the journals of a sweep to MLflow, from one process.

The trials run anywhere and write journals into their folders.
"""

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Self

from distvae.files.refusal import Refusal
from distvae.track.journal import LINES, unsent_folders
from distvae.track.retries import Retries
from distvae.track.sender import Sender
from distvae.track.store import Store, error_summary, without_secrets

MIN_PAUSE, MAX_PAUSE = 0.5, 5.0
"""Seconds between two rounds of sending."""
SHARE = 0.05
"""The share of the time that sending takes while trials train, unless `MAX_PAUSE` ends a pause."""


class Relay:
    """A thread that sends the journals below a folder. On leaving it sends all of them."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        self._senders: dict[Path, Sender] = {}
        self._changed: set[Path] = set()
        self._damaged: set[Path] = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._retries = Retries(
            f"recording in MLflow at {without_secrets(store.uri)} fails",
            f"Everything is kept in {root}, and 'distvae sync {root}' sends it; nothing else is"
            " affected.",
            "MLflow answers again.",
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Start to send."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send what is left, also by processes that ended long ago."""
        self._over.set()
        self._thread.join()
        self._send(self.root)

    def __getstate__(self) -> dict[str, object]:
        """Return nothing. Tune pickles its callbacks without reading them back."""
        return {}

    def notify(self, folder: Path) -> None:
        """Send soon what is new in a folder, or below it."""
        with self._lock:
            self._changed.add(folder)

    def _run(self) -> None:
        pause = MIN_PAUSE
        while not self._over.wait(pause):
            began = time.monotonic()
            with self._lock:
                changed, self._changed = sorted(self._changed), set()
            for folder in changed:
                if self._retries.resting or self._over.is_set():
                    self.notify(folder)
                else:
                    self._send(folder)
            took = time.monotonic() - began
            pause = min(max(MIN_PAUSE, took / SHARE), MAX_PAUSE)

    def _send(self, root: Path) -> None:
        """Send the journals of a folder and of those below it, until MLflow fails."""
        for folder in unsent_folders(root, self._report_damage):
            if not self._retries.attempt(partial(self._send_one, folder)):
                self.notify(root)
                return

    def _send_one(self, folder: Path) -> None:
        """Send a journal. A deleted or damaged one is no failure of MLflow."""
        try:
            self._senders.setdefault(folder, Sender(self.store, folder)).send()
        except Refusal as refusal:
            self._report_damage(folder, refusal)
        except Exception:
            if (folder / LINES).exists():
                raise

    def _report_damage(self, folder: Path, error: Exception) -> None:
        """Print once what is wrong with a folder. The others go on."""
        if (folder / LINES).exists() and folder not in self._damaged:
            reason = error_summary(error)
            print(f"{folder}: cannot be sent to MLflow: {reason}", file=sys.stderr)
            self._damaged.add(folder)
