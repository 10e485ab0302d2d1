"""Sends what the processes of a sweep wrote down: these run anywhere and tell folders, one process
tells MLflow.
"""

import sys
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distvae.files.refusal import Refusal
from distvae.track.journal import LINES, unsent_folders
from distvae.track.retries import Retries
from distvae.track.sender import Sender
from distvae.track.store import Store, error_summary, without_secrets

GATHERING = 0.5  # seconds in which there may be more news


class Relay:
    """Sends, in a thread of its own, what folders below one have to tell; on leaving, all of it."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        self._senders: dict[Path, Sender] = {}
        self._changed: set[Path] = set()
        self._damaged: set[Path] = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._retries = Retries(
            f"MLflow at {without_secrets(store.uri)} does not take what there is to tell",
            f"It is kept in {root}, and 'distvae sync {root}' sends it; nothing else is affected.",
            "MLflow answers again.",
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin to send."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what is left, also of processes that ended long ago."""
        self._over.set()
        self._thread.join()
        self._send(self.root)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles whom it calls back, never to read it, and a thread cannot be."""
        return {}

    def notify(self, folder: Path) -> None:
        """There is something new in a folder, or below it."""
        with self._lock:
            self._changed.add(folder)

    def _run(self) -> None:
        while not self._over.wait(GATHERING):
            with self._lock:
                changed, self._changed = sorted(self._changed), set()
            for place in changed:
                if self._retries.resting or self._over.is_set():
                    self.notify(place)
                else:
                    self._send(place)

    def _send(self, place: Path) -> None:
        """All that a folder and those below it have to tell, until MLflow does not take it."""
        for folder in unsent_folders(place, self._left_out):
            if not self._retries.attempt(partial(self._tell, folder)):
                self.notify(place)
                return

    def _tell(self, folder: Path) -> None:
        """What a folder has to tell, unless it is gone or damaged, which says nothing of MLflow."""
        try:
            self._senders.setdefault(folder, Sender(self.store, folder)).send()
        except Refusal as refusal:
            self._left_out(folder, refusal)
        except Exception:
            if (folder / LINES).exists():
                raise

    def _left_out(self, folder: Path, error: Exception) -> None:
        """Say once what is wrong with a folder; the others go on."""
        if (folder / LINES).exists() and folder not in self._damaged:
            print(
                f"{folder}: MLflow lacks what it has to tell: {error_summary(error)}",
                file=sys.stderr,
            )
            self._damaged.add(folder)
