"""Whether machines are fit to train."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import AsJson

app = typer.Typer()


@app.command()
def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a Ray that runs: look at all of its machines, not at this one alone."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="A folder that all machines are to share: a path or a URI."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="CLUSTER.yaml", help="Before 'ray up': look at it, and at its machines by ssh."
        ),
    ] = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="Only refuse if a sweep or training runs on this head.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Say what is wrong with this machine, or with those of a cluster, and what to do; exit code 1
    if anything is.
    """
    from distvae.commands import jobs
    from distvae.files.refusal import Refusal
    from distvae.machines.doctor import cluster_file, diagnosis
    from distvae.machines.doctor.examination import examine_cluster, examine_this_machine
    from distvae.machines.running_lock import refuse_if_running

    if idle:
        refuse_if_running()
        return
    if file is not None and address is not None:
        raise Refusal(
            "--file: is looked at before a Ray runs, --address is one that does; one of both"
            " expected"
        )
    if file is not None:
        found = cluster_file.examine_cluster_file(file, storage)
    else:
        found = (
            examine_cluster(address, jobs.ROOT, storage)
            if address
            else examine_this_machine(jobs.ROOT, storage)
        )
    (diagnosis.show_json if json else diagnosis.show)(found)
    if any(line.state == "bad" for line in found):
        raise typer.Exit(1)
