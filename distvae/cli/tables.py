"""Published tables, made again."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distvae.cli.options import Force, GPUsPerWorker, Quiet

app = typer.Typer()


@app.command()
def reproduce(
    table: Annotated[str | None, typer.Argument(help="Without one, the tables are listed.")] = None,
    data: Annotated[
        str, typer.Option(help="Folder with the data that the table needs; else $DISTVAE_DATA.")
    ] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROWS", help="Rows by name, such as 'vae-*'; may be repeated."),
    ] = None,
    scale: Annotated[
        Literal["smoke", "day", "full"],
        typer.Option(
            help="full: as published; day: what two cores do in a day; smoke: whether it runs."
        ),
    ] = "full",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Of each row; else what the table has at that scale."),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only say what it takes, and end: no data is sought, nothing is written."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the trainings; default runs/reproduce/TABLE."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps a file for each finished row; default OUT/rows."),
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Rows side by side; else as many as fit.")
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|LEAST:MOST", help="Processes that train each row together; 0: its own alone."
        ),
    ] = "0",
    gpus_per_worker: GPUsPerWorker = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a row without workers.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray that runs; else one is started here.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="For machines that are still to come.")
    ] = 0.0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the rows in that folder; --only adds to them."),
    ] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make a published table again: what is obtained here beside what was published."""
    from distvae.reproduce import command

    if table is None:
        command.tables()
        return
    from distvae.commands import jobs

    resources = jobs.trial_resources(workers, gpus_per_worker, gpus_per_trial, address, wait)
    folder, root = out or jobs.ROOT / "reproduce" / table, jobs.ROOT
    patterns = only or ["*"]
    code = command.remake(
        table,
        scale,
        patterns,
        seeds,
        data,
        folder,
        rows,
        concurrent,
        plan,
        resume,
        force,
        quiet,
        resources,
        root,
    )
    raise SystemExit(code)
