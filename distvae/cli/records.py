"""What MLflow has of runs and sweeps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distvae.cli.options import AsJson

app = typer.Typer()
Kinds = Literal["run", "sweep", "trial"]


@app.command()
def runs(
    of: Annotated[
        str | None, typer.Option(metavar="SWEEP", help="Its trials: a name, an id or a folder.")
    ] = None,
    kind: Annotated[
        Kinds | None, typer.Option(help="Only these; default: runs and sweeps.")
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="FILTER",
            help="""As MLflow has it: "metrics.hoyer > 0.4 and params.model.kind = 'sdm'".""",
        ),
    ] = "",
    sort: Annotated[
        str | None, typer.Option(metavar="METRIC", help="The largest first; else the latest.")
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="The smallest first.")] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="Show this one; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of the lines.")] = 30,
    json: AsJson = False,
) -> None:
    """List runs and sweeps, or the trials of a sweep, from MLflow."""
    from distvae.commands import browse, jobs

    browse.runs(
        jobs.ROOT,
        of,
        [kind] if kind else ["run", "sweep"],
        where,
        sort,
        ascending,
        metric or [],
        limit,
        json,
    )


@app.command()
def sync(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Default: all below runs/.")
    ] = None,
) -> None:
    """Send MLflow what it did not take when it happened, such as the epochs of a run while its
    server was away.
    """
    from distvae.commands import browse, jobs

    if browse.sync(jobs.ROOT, folders or []):
        raise typer.Exit(1)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 5000) -> None:
    """Open MLflow on what was recorded here: runs, sweeps, comparisons; for this machine alone."""
    from distvae.commands import browse, jobs

    browse.ui(jobs.ROOT, port)


@app.command()
def serve(
    storage: Annotated[
        str,
        typer.Option(
            envvar="DISTVAE_STORAGE",
            help="What all machines share: artifacts, and a copy of the database.",
        ),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="DISTVAE_DATABASE", help="Such as postgresql://...; else ~/mlflow/mlflow.db."
        ),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="End when nothing has listened there for a minute."),
    ] = None,
) -> None:
    """Serve MLflow on the head of a cluster, for this machine alone; 'ray up' starts it."""
    from distvae.files.refusal import Refusal
    from distvae.track.server import serve

    if beside is not None and not beside.rpartition(":")[2].isdecimal():
        raise Refusal(f"--beside: {beside}; an address such as 127.0.0.1:6379 expected")
    serve(storage, port, database, beside)
