"""`distvae sync`: send MLflow the records that it has not received yet."""

import sys
from collections.abc import Sequence
from pathlib import Path

from distvae.files.refusal import Refusal


def sync_folders(root: Path, folders: Sequence[Path]) -> int:
    """Send the pending records below some folders, by default below `root`; return the number of
    folders that failed.
    """
    from distvae.track import Store
    from distvae.track.journal import unsent_folders
    from distvae.track.records import SHORT
    from distvae.track.sender import Sender
    from distvae.track.store import error_summary

    for folder in folders:
        if not folder.is_dir():
            raise Refusal(
                f"{folder}: no such folder; the folder of a run or sweep, or one that contains"
                " some, expected"
            )
    store = Store.find(root)
    failed = set[Path]()

    def report_failure(folder: Path, error: Exception) -> None:
        print(f"{folder}: {error_summary(error)}", file=sys.stderr)
        failed.add(folder)

    pending: list[Path] = []
    for place in folders or [root]:
        pending += unsent_folders(place, report_failure)
    for folder in pending:
        try:
            record = Sender(store, folder).send()
            print(f"{folder}: sent, {record[:SHORT]}")
        except Exception as error:
            report_failure(folder, error)
    if not pending and not failed:
        print("nothing is waiting to be sent")
    return len(failed)
