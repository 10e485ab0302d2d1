"""`distvae report`: write a page about a sweep or a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.options import RUNS, Force


@dataclass(frozen=True)
class ReportOptions:
    """The options of `distvae report`."""

    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File to write; default report.html in that folder."),
    ] = None
    force: Force = False


def write_report(source: Path, options: ReportOptions) -> None:
    """Write the page of a sweep or a run, and record the page that belongs to its folder."""
    from distvae.report import log, write

    page = write(source, options.out, options.force)
    print(page)
    if options.out is None:
        log(source, page, RUNS)
