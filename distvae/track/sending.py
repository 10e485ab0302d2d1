"""Send the journal of a folder to MLflow, as often as the standard input says so.

This is the program of `SendingProcess`. It imports neither torch nor what trains.
"""

import os
from contextlib import suppress
from pathlib import Path

from distvae.files.memory import collecting_later
from distvae.track.process import FAILED, SENT
from distvae.track.retries import Retries
from distvae.track.sender import Sender
from distvae.track.store import Store

STANDARD_INPUT = 0
NOTICES_AT_ONCE = 65536


def main(path: str) -> int:
    """Send until the standard input ends, and return the exit code."""
    store, folder = Store(os.environ["MLFLOW_TRACKING_URI"]), Path(path)
    _import_early(store)
    retries, sender = Retries.sending(folder, store), Sender(store, folder)
    is_notified = False
    while os.read(STANDARD_INPUT, NOTICES_AT_ONCE):
        is_notified = True
        if not retries.resting:
            retries.attempt(sender.send)
    if is_notified:
        retries.attempt(sender.send)
    return FAILED if retries.failing else SENT


def _import_early(store: Store) -> None:
    """Import what sending needs, while there is nothing to send."""
    # an error will be met again, and reported, when something is sent
    with suppress(Exception), collecting_later():
        store.import_early()
