"""Commands for what MLflow has of runs and sweeps."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.options import RUNS
from distvae.commands.runs import RunsOptions, list_runs
from distvae.commands.send import refuse_folders, send_folders
from distvae.commands.serve import serve_mlflow
from distvae.commands.ui import open_ui

app = typer.Typer(rich_help_panel="Records in MLflow")
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")]


@command(app)
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...", help="With --send: what to send; default: all below runs/."
        ),
    ] = None,
    *,
    send: Annotated[
        bool,
        typer.Option("--send", help="Send what MLflow lacks, such as epochs while it was down."),
    ] = False,
    options: RunsOptions,
) -> None:
    """List runs and sweeps, or the trials of a sweep, from MLflow."""
    if not send:
        refuse_folders(folders or [])
        list_runs(RUNS, options)
    elif send_folders(RUNS, folders or []):
        raise typer.Exit(1)


@command(app)
def ui(port: Port = 5000) -> None:
    """Open MLflow with the runs and sweeps recorded here, on this machine alone."""
    open_ui(RUNS, port)


@command(app)
def serve(
    storage: Annotated[
        str,
        typer.Option(
            envvar="DISTVAE_STORAGE",
            help="Storage that all machines share, for artifacts and a copy of the database.",
        ),
    ],
    port: Port = 5000,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="DISTVAE_DATABASE",
            help="A database such as postgresql://...; default ~/mlflow/mlflow.db.",
        ),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Exit when nothing has listened there for a minute."
        ),
    ] = None,
) -> None:
    """Serve MLflow on the head of a cluster, on this machine alone; 'ray up' starts it."""
    serve_mlflow(storage, port, database, beside)
