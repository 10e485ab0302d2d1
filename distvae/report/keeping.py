"""Giving the page about a folder to the record that the folder has in MLflow."""

import sys
from pathlib import Path

from distvae.report import write
from distvae.track import Store, Tracker


def reported(folder: Path, root: Path, quiet: bool) -> None:
    """Write the page of a sweep and record it; should that fail, its results are there all the
    same.
    """
    try:
        written = write(folder)
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        print(
            f"the report could not be written: {cause}; 'distvae report {folder}' tries again",
            file=sys.stderr,
        )
        return
    if not quiet:
        print(f"report:    {written}")
    keep(folder, written, root)


def keep(folder: Path, page: Path, root: Path) -> None:
    """Give the page of a folder to the record that the folder has in MLflow, if it has one."""
    try:
        record = Tracker.of_folder(folder, Store.find(root))
    except (OSError, ValueError, KeyError) as error:
        print(
            f"{folder}: what it remembers of its record is damaged ({error!r}); the report is not"
            " in MLflow",
            file=sys.stderr,
        )
        return
    if record:
        record.report(page)
