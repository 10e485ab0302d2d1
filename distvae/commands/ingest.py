"""`distvae ingest`: shuffle the rows of large tables into a folder to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.options import Force, Quiet


@dataclass(frozen=True)
class IngestOptions:
    """The options of `distvae ingest`."""

    val: Annotated[
        float, typer.Option(help="Share of the rows for validation; 0: validate on training rows.")
    ] = 0.05
    test: Annotated[
        float, typer.Option(help="Share of the rows for testing; 0: test on validation rows.")
    ] = 0.05
    seed: Annotated[
        int, typer.Option(min=0, max=2**64 - 1, help="Seed of the order of the rows.")
    ] = 0
    rows_per_file: Annotated[
        int | None, typer.Option(min=1, help="Rows per file; default: 256 MB of them.")
    ] = None
    force: Force = False
    quiet: Quiet = False


def ingest_tables(sources: Sequence[Path], out: Path, options: IngestOptions) -> None:
    """Write the rows of tables in random order into a folder, and print what it contains."""
    from distvae.data.tables.ingest import Division, ingest

    division = Division(options.val, options.test, options.seed, options.rows_per_file)
    summary = ingest(sources, out, division, options.force, options.quiet)
    if not options.quiet:
        print(summary)
