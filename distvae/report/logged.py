"""Log a folder's report to the MLflow run that belongs to the folder."""

import sys
from pathlib import Path

from distvae.files.refusal import cause
from distvae.report import write
from distvae.track import Store, Tracker


def write_and_log(folder: Path, root: Path, quiet: bool) -> None:
    """Write a sweep's report and log it. A failure is printed; the sweep's results stand."""
    try:
        page = write(folder)
    except Exception as error:
        print(
            f"the report could not be written: {cause(error)};"
            f" 'distvae report {folder}' tries again",
            file=sys.stderr,
        )
        return
    if not quiet:
        print(f"report:    {page}")
    log(folder, page, root)


def log(folder: Path, page: Path, root: Path) -> None:
    """Log a folder's report to its MLflow run, if it has one."""
    try:
        record = Tracker.of_folder(folder, Store.find(root))
    except (OSError, ValueError, KeyError) as error:
        print(
            f"{folder}: its record of the MLflow run is damaged ({error!r}); "
            "the report was not logged to MLflow",
            file=sys.stderr,
        )
        return
    if record:
        record.files([page], "report")
        record.wait()
