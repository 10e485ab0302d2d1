"""Training, and what is done with a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import (
    AsJson,
    Assignments,
    Data,
    Force,
    GPUsPerWorker,
    Quiet,
    RunFolder,
    WhichSplit,
    style,
)

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="See 'distvae recipes'.")
    ],
    assignments: Assignments = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run; default runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in that folder.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="The same as train.seed=N.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: AsJson = False,
    evaluate: Annotated[
        bool, typer.Option(help="Judge the trained model on the test split.")
    ] = True,
    track: Annotated[bool, typer.Option(help="Record the run in MLflow.")] = True,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|LEAST:MOST",
            help="Processes that train together under Ray; 0: this one alone.",
        ),
    ] = "0",
    gpus_per_worker: GPUsPerWorker = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray that runs; else one is started here.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="For machines that are still to come.")
    ] = 0.0,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Keep the run where all machines reach it: a path, s3://bucket/runs.",
        ),
    ] = None,
    previous: Annotated[
        bool,
        typer.Option(
            "--previous", help="Go on from the checkpoint before the last, if that is damaged."
        ),
    ] = False,
) -> None:
    """Train a model into a run folder; Ctrl-C leaves a checkpoint that --resume goes on from."""
    from distvae.commands import jobs

    config = jobs.configured(recipe, assignments or [], data, seed)
    group = jobs.group(workers, gpus_per_worker, address, wait)
    name = jobs.title(recipe)
    jobs.train(
        config,
        name,
        out,
        resume or previous,
        force,
        style(quiet, json),
        evaluate,
        track,
        group,
        storage,
        previous,
    )


@app.command()
def evaluate(
    run: RunFolder,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Of eval. or data. alone, such as 'eval.metrics=[effects]'.",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Other data than that of the run.")] = None,
    split: WhichSplit = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help=(
                "Where tables and pictures go; default RUN/evaluation/SPLIT, SPLIT-of-DATA of other"
                " data."
            ),
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Judge a run: scores per file and speaker, sparsity of its codes, pictures, a sound before and
    after.
    """
    from distvae.commands import evaluation

    evaluation.evaluate(run, assignments or [], data, split, out, force, quiet)


@app.command()
def resynthesize(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where the result goes.")],
    force: Force = False,
) -> None:
    """Pass one recording through a model and write what comes back."""
    from distvae.tasks.resynthesis import resynthesize_file
    from distvae.train.run import Run

    resynthesize_file(Run.open(run), source, target, force)


@app.command()
def encode(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Folder of data, of the kind the run was trained on."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write.")],
    split: WhichSplit = "all",
    force: Force = False,
) -> None:
    """Write the codes of data, with where each came from, to a Parquet file."""
    from distvae.commands import evaluation

    evaluation.encode(run, data, out, split, force)


@app.command()
def sample(
    run: RunFolder,
    target: Annotated[
        Path,
        typer.Argument(metavar="PICTURE", help="A .png, .pdf or .svg; the values go beside it."),
    ],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many draws.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1)] = 0,
    force: Force = False,
) -> None:
    """Draw from a model's prior."""
    from distvae.tasks.codes import sample
    from distvae.train.run import Run

    sample(Run.open(run), target, count, seed, force)


@app.command()
def show(run: RunFolder) -> None:
    """What a run is, how its training went, and how it was judged."""
    from distvae.commands import show

    show.show(run)


@app.command()
def check(
    run: RunFolder,
    exact: Annotated[
        bool, typer.Option("--exact", help="Also enumerate all states of binary latents.")
    ] = False,
    rows: Annotated[
        int, typer.Option(min=1, help="Training data points to compare, with --exact.")
    ] = 1000,
) -> None:
    """Check that a run's files are whole, and its bound against the exact likelihood."""
    from distvae.commands import evaluation

    evaluation.check(run, exact, rows)
