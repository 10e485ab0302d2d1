"""Reports on sweeps and runs: a self-contained HTML page for each, also recorded in MLflow."""

import sys
from pathlib import Path

from distvae.files.paths import atomic_file, check_new_file
from distvae.files.refusal import cause
from distvae.report.page import GENERATOR, html
from distvae.report.reading import Sweep, read_results
from distvae.report.runs import run_page
from distvae.report.sweeps import sweep_page
from distvae.track import Store, Tracker

NAME = "report.html"
"""The file name of a report in the folder that it describes."""
HEAD = 2000
"""The number of leading characters searched for the mark of a report."""


def write(source: Path, out: Path | None = None, force: bool = False) -> Path:
    """Write the report on a folder of a sweep or run; return its path."""
    found = read_results(source)
    path = out or source / NAME
    check_new_file(path, (".html", ".htm"), force or _is_report(path))
    text = html(sweep_page(found) if isinstance(found, Sweep) else run_page(found))
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _is_report(path: Path) -> bool:
    """Return whether a file is a report. A report may always be overwritten."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return GENERATOR in file.read(HEAD)


def write_and_log(folder: Path, root: Path, quiet: bool) -> None:
    """Write a sweep's report and log it. A failure is printed and does not affect the sweep's
    results.
    """
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
        print(f"report:    {page.absolute().as_uri()}")
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
