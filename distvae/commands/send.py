"""`distvae runs --send`: send MLflow what it lacks."""

import sys
from collections.abc import Sequence
from pathlib import Path

from distvae.files.refusal import Refusal


def refuse_folders(folders: Sequence[Path]) -> None:
    """Refuse folders that are to be listed."""
    if folders:
        raise Refusal(f"{folders[0]}: without --send; --of SWEEP expected, or --send FOLDER")


def send_folders(root: Path, folders: Sequence[Path]) -> int:
    """Send the records below some folders, by default below `root`; return the number of folders
    that failed.
    """
    from distvae.track import Store
    from distvae.track.records import SHORT
    from distvae.track.sender import Sender
    from distvae.track.sending import recorded_folders
    from distvae.track.store import error_summary

    for folder in folders:
        if not folder.is_dir():
            raise Refusal(
                f"{folder}: no such folder; the folder of a run or sweep, or one that contains"
                " some, expected"
            )
    store, failed, sent = Store.find(root), 0, 0
    for folder in (found for place in folders or [root] for found in recorded_folders(place)):
        sender = Sender(store, folder)
        try:
            if list(sender.send()):
                print(f"{folder}: sent, {sender.id[:SHORT]}")
                sent += 1
        except Exception as error:
            print(f"{folder}: {error_summary(error)}", file=sys.stderr)
            failed += 1
    if not sent and not failed:
        print("MLflow lacks nothing")
    return failed
