"""`distvae report`: write a page about a sweep or a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.options import RUNS, Force, run_callback


@dataclass(frozen=True)
class ReportOptions:
    """The options of `distvae report`."""

    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File to write; default report.html in that folder."),
    ] = None
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP",
            callback=run_callback,
            help="Also compare its front with that of SWEEP.",
        ),
    ] = None
    public: Annotated[
        bool,
        typer.Option(
            "--public",
            help="Leave out recordings and paths, for publishing; writes report.public.html.",
        ),
    ] = False
    force: Force = False


def write_report(source: Path, options: ReportOptions) -> None:
    """Write the page of a sweep or a run, and record the page that belongs to its folder."""
    from distvae.report import write
    from distvae.report.logged import log

    page = write(source, options.out, options.force, options.against, options.public)
    print(page)
    if options.out is None and not options.public:
        log(source, page, RUNS)
