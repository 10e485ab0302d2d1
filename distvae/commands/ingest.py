"""`distvae ingest`: shuffle the rows of large tables into a folder to train on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import MACHINES, Force, Quiet, Wait
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.data.tables.workers import Workers


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
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes; default: one on each core."),
    ] = None
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray, whose machines do the work; default: this machine.",
            rich_help_panel=MACHINES,
        ),
    ] = None
    wait: Wait = 0.0
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the same ingest after it was killed.")
    ] = False
    force: Force = False
    quiet: Quiet = False


def ingest_tables(sources: Sequence[Path], out: Path, options: IngestOptions) -> None:
    """Write the rows of tables in random order into a folder, and print what it contains."""
    from distvae.data.tables.ingest import Division, Execution, ingest

    division = Division(options.val, options.test, options.seed, options.rows_per_file)
    with workers_of(options) as workers:
        execution = Execution(workers, options.resume)
        summary = ingest(sources, out, division, options.force, options.quiet, execution)
    if not options.quiet:
        print(summary)


@contextmanager
def workers_of(options: IngestOptions) -> "Iterator[Workers]":
    """Yield what carries out an ingest: processes here, or the machines of a Ray."""
    if options.address is None:
        from distvae.data.tables.workers import LocalProcesses

        if options.wait:
            raise Refusal("--wait: for machines of a Ray; --address expected with it")
        yield LocalProcesses(options.processes)
        return
    from distvae.machines.cluster_ingest import ClusterMachines
    from distvae.machines.session import ray_session
    from distvae.machines.workers.worker_group import checked_wait

    if options.processes is not None:
        raise Refusal(
            "--processes: of this machine; with --address Ray starts one for each processor of its"
            " machines, so no --processes expected"
        )
    with ray_session(options.address, 0) as ray:
        yield ClusterMachines(ray, checked_wait(options.wait))
