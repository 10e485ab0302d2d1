"""Benchmarks: one for each claim."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distvae.commands.options import AsJson

app = typer.Typer(
    no_args_is_help=True, help="Time parts of the program beside what they cannot do without."
)

Steps = Annotated[int, typer.Option(min=10, help="How many to time.")]
Threads = Annotated[int, typer.Option(min=1, help="Of the process.")]
Rows = Annotated[
    int, typer.Option(min=1024, help="Patches to train on; times are for all of them.")
]
Epochs = Annotated[int, typer.Option(min=1, help="To train before one is timed.")]
Picture = Annotated[Path | None, typer.Option(help="Where patches come from; else a drawn scene.")]
Device = Literal["auto", "cpu", "cuda"]
Keep = Annotated[
    Path | None, typer.Option(help="Folder of rows for 'distvae results' to keep the figures in.")
]


@app.command()
def steps(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe with an encoder; all of them without it.")
    ] = None,
    steps: Steps = 200,
    threads: Threads = 1,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """A training step beside the matrix products of its shapes."""
    from distvae.bench.steps import report

    report(recipe, steps, threads, json, keep)


@app.command()
def tvae(
    picture: Picture = None,
    rows: Rows = 6000,
    epochs: Epochs = 20,
    threads: Threads = 1,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """An epoch of TVAE beside what the dense algorithm's matrix products would take."""
    from distvae.bench.tvae import report

    report(picture, rows, epochs, threads, json, keep)


@app.command()
def gpu(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="big, s64, vsc-32, ...; all of them without one."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto",
    rows: Annotated[int, typer.Option(min=1024, help="To train on, at most.")] = 60_000,
    epochs: Annotated[int, typer.Option(min=1, help="To time, after one that is not.")] = 3,
    threads: Threads = 1,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """Epochs on a GPU beside their matrix products there; alone with torch: python -m
    distvae.bench.gpu.
    """
    from distvae.bench.gpu import How, report

    report(cases or [], How(device, rows, epochs, threads), json, keep)


@app.command()
def team(steps: Steps = 200, json: AsJson = False, keep: Keep = None) -> None:
    """Adding up a gradient over two workers of one machine, each way."""
    from distvae.bench.team import report

    report(steps, json, keep)


@app.command()
def workers(
    picture: Picture = None,
    rows: Rows = 6000,
    epochs: Epochs = 20,
    turns: Annotated[int, typer.Option(min=1, help="How often each way has its turn.")] = 3,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """Two workers beside one, by torchrun and under Ray, all from one trained state."""
    from distvae.bench.workers import report

    report(picture, rows, epochs, turns, json, keep)


@app.command()
def store(
    rows: Annotated[int, typer.Option(min=1024, help="To hold.")] = 6000,
    shards: Annotated[int, typer.Option(min=1, help="Processes that hold populations.")] = 4,
    blocks: Annotated[int, typer.Option(min=10, help="To read and write.")] = 200,
    storage: Annotated[
        Path | None, typer.Option(help="The folder to write to; else a temporary one.")
    ] = None,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """Populations of many rows in shards: beginning, a block, a snapshot, a restart."""
    from distvae.bench.store import report

    report(rows, shards, blocks, json, keep, storage)


@app.command()
def sweep(
    space: Annotated[
        str, typer.Argument(metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.")
    ] = "demo",
    trials: Annotated[int, typer.Option(min=1, help="How many, each way.")] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each trial, instead of what the space says.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Trials side by side.")] = 2,
    json: AsJson = False,
    keep: Keep = None,
) -> None:
    """The same trials by processes that are kept from one to the next, and each as a run of Ray
    Train.
    """
    from distvae.bench.sweep import report

    report(space, trials, epochs, concurrent, json, keep)
