"""What there is to train, sweeps over it, and pages of results."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import (
    NAMED,
    AsJson,
    Assignments,
    Data,
    Force,
    GPUsPerWorker,
    Quiet,
    recorded,
    style,
)

app = typer.Typer()


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this one, and all it resolves to.")
    ] = None,
) -> None:
    """List the recipes, or show one."""
    from distvae.commands import jobs

    jobs.recipes(name)


@app.command()
def spaces() -> None:
    """List the search spaces that 'distvae tune' knows by name."""
    from distvae.tune.space_files import space_names

    for name, about in space_names().items():
        print(f"{name:16}{about}")


@app.command()
def tune(
    space: Annotated[str, typer.Argument(metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.")],
    assignments: Assignments = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the sweep; default runs/SPACE.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="How many, instead of what the space says."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Trials side by side; else as many as fit."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|LEAST:MOST",
            help="Processes that train each trial together; 0: its own alone.",
        ),
    ] = "0",
    gpus_per_worker: GPUsPerWorker = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of a trial without workers; 0.25: four share one."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray that runs; else one is started here.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="For machines that are still to come.")
    ] = 0.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in that folder.")
    ] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Sweep a search space: quality against sparsity, every trial recorded in MLflow."""
    from distvae.commands import jobs

    resources = jobs.trial_resources(workers, gpus_per_worker, gpus_per_trial, address, wait)
    jobs.tune(
        space, assignments or [], data, out, trials, concurrent, resume, force, quiet, resources
    )


@app.command()
def report(
    source: Annotated[
        Path, typer.Argument(metavar="SWEEP_FILE|RUN", callback=recorded, help=NAMED)
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page; default report.html in that folder."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP_FILE", callback=recorded, help="Hold its front against this sweep's."
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option(
            "--public", help="Without recordings and paths, to publish; into report.public.html."
        ),
    ] = False,
    force: Force = False,
) -> None:
    """Write one page about a sweep or a run, to be read without anything else, and the same in
    Markdown beside it.
    """
    from distvae.commands import jobs

    jobs.page(source, out, force, against, public)


@app.command()
def results(
    rows: Annotated[Path, typer.Argument(help="Folder of finished rows, one JSON each.")] = Path(
        "docs/results"
    ),
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File for the index; else all is printed.")
    ] = None,
    add: Annotated[
        Path | None,
        typer.Option(callback=recorded, help="First add an evaluated run as a row of --table."),
    ] = None,
    table: Annotated[str, typer.Option(help="The table a new row belongs to.")] = "runs",
    force: Force = False,
) -> None:
    """Build the index of results, and a page and a CSV for each table beside its rows."""
    from distvae.files.output import check_writable_file
    from distvae.report.results.build import build
    from distvae.report.results.record import add_run

    if out is not None:
        check_writable_file(out)
    if add is not None:
        add_run(rows, add, table, force=force)
    build(rows, out)


@app.command()
def peer(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "Of speech: identity, pca-COUNT, nmf-COUNT; of a picture: nlm, wavelet, tv,"
                " biharmonic; "
                "of a sound: zero, local, wiener, stsa."
            ),
        ),
    ],
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="Whose data it is judged on.")
    ],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.noise=25.")
    ] = None,
    data: Data = None,
    row: Annotated[
        Path | None,
        typer.Option(metavar="TABLE/ROW.json", help="Keep the figures as a row of results."),
    ] = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Judge a method to compare with as the models are, on the data of a recipe: what there is to
    beat.
    """
    from distvae.commands import evaluation, jobs
    from distvae.report.results.record import judge_baseline

    config = jobs.configured(recipe, assignments or [], data, None)
    evaluation.tell(judge_baseline(name, config, row, force), style(False, json))


@app.command()
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Each .npy, .parquet, .arrow, .feather."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    val: Annotated[
        float, typer.Option(help="Share of the rows to validate on; 0: on those to train on.")
    ] = 0.05,
    test: Annotated[
        float, typer.Option(help="Share of the rows to test on; 0: on those to validate on.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of the order of the rows.")] = 0,
    rows_per_file: Annotated[
        int | None, typer.Option(min=1, help="Instead of 256 MB of them.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Mix the rows of tables of numbers, however large, into a folder to train on with
    data.kind=rows.
    """
    from distvae.data.tables.ingest import ingest

    told = ingest(sources, out, val, test, seed, rows_per_file, force, quiet)
    if not quiet:
        print(told)
