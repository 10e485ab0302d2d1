"""Benchmarks of many workers, many rows, and many trainings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.bench import Epochs, OutputOptions, Picture, Rows, Steps
from distvae.cli.command import command

app = typer.Typer()


@command(app)
def team(steps: Steps = 200, *, output: OutputOptions) -> None:
    """Time the sum of a gradient over two workers of one machine, in each way."""
    from distvae.bench.team import bench_team

    bench_team(steps, output.output())


@dataclass(frozen=True)
class TrainedOptions:
    """What a benchmark of several workers trains."""

    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="big, s64, speech-sdm; default: all of them."),
    ] = None
    picture: Picture = None


@command(app)
def workers(
    trained: TrainedOptions,
    rows: Rows = 6000,
    epochs: Epochs = 20,
    turns: Annotated[int, typer.Option(min=1, help="Times that each way is run.")] = 3,
    batch: Annotated[int, typer.Option(min=2, help="Rows of a step, of all workers.")] = 32,
    *,
    output: OutputOptions,
) -> None:
    """Time two workers beside one, by torchrun and under Ray, all from one trained run."""
    from distvae.bench.workers import Extent, bench_workers

    extent = Extent(rows, epochs, turns, batch)
    bench_workers(trained.cases or [], trained.picture, extent, output.output())


@dataclass(frozen=True)
class LinkOptions:
    """The link between two machines of `distvae bench network`, and the workers on each."""

    mbits: Annotated[
        float | None,
        typer.Option(min=0.1, help="Megabits per second, in each direction; default: no limit."),
    ] = None
    delay: Annotated[
        float, typer.Option(metavar="MS", min=0.0, help="Milliseconds that a packet travels.")
    ] = 0.0
    workers: Annotated[int, typer.Option(min=1, help="Workers on each machine.")] = 1


@command(app)
def network(
    trained: TrainedOptions,
    steps: Annotated[int, typer.Option(min=16, help="Steps of an epoch.")] = 256,
    epochs: Epochs = 4,
    turns: Annotated[int, typer.Option(min=1, help="Times that each way is run.")] = 3,
    *,
    link: LinkOptions,
    output: OutputOptions,
) -> None:
    """Time two machines beside one process: a sum at each step, larger batches, and averages every
    so many steps. The machines are namespaces with a link between them; needs root.
    """
    from distvae.bench.namespaces import Link
    from distvae.bench.network import NetworkExtent, bench_network

    between = Link(link.mbits, link.delay)
    extent = NetworkExtent(between, link.workers, steps, epochs, turns)
    bench_network(trained.cases or [], trained.picture, extent, output.output())


@command(app)
def copies(
    rows: Annotated[int, typer.Option(min=1024, help="Number of rows.")] = 6000,
    blocks: Annotated[int, typer.Option(min=10, help="Number of blocks to send.")] = 50,
    *,
    output: OutputOptions,
) -> None:
    """Time the copy of a worker in a keeper: filling it, a block, a point, reading it back."""
    from distvae.bench.copies import bench_copies

    bench_copies(rows, blocks, output.output())


@command(app)
def rows(
    rows: Annotated[int, typer.Option(min=2048, help="Number of rows to make.")] = 100_000,
    values: Annotated[int, typer.Option(min=1, help="Values of a row.")] = 144,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes of the ingest; default: one on each core.")
    ] = None,
    blocks: Annotated[
        int, typer.Option(min=0, help="Blocks of 1024 rows to train on; 0: only ingest.")
    ] = 8,
    folder: Annotated[
        Path | None, typer.Option(help="Where to put the data meanwhile; default: the system's.")
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Ingest a table that is made for it and train on it, with seconds, memory of each process
    and bytes per row.
    """
    from distvae.bench.rows import RowsCase, bench_rows

    bench_rows(RowsCase(rows, values, processes, blocks), folder, output.output())


@command(app)
def growth(picture: Picture = None, epochs: Epochs = 5, *, output: OutputOptions) -> None:
    """Time an epoch of a TVAE with twice as many rows, latents, values or states, and measure its
    memory.
    """
    from distvae.bench.growth import bench_growth

    bench_growth(picture, epochs, output.output())


@command(app)
def order(
    rows: Annotated[int, typer.Option(min=1024, help="Number of rows.")] = 10**6,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a step, of all workers.")] = 1024,
    steps: Annotated[int, typer.Option(min=10, help="Steps of a turn.")] = 200,
    train: Annotated[
        bool, typer.Option(help="Also train for --steps steps, with one worker and with two.")
    ] = False,
    *,
    output: OutputOptions,
) -> None:
    """Time the order of an epoch as a list and computed, and measure the memory of training."""
    from distvae.bench.order import OrderExtent, bench_order

    bench_order(OrderExtent(rows, batch, steps), train, output.output())


@command(app)
def sweep(
    space: Annotated[
        str, typer.Argument(metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.")
    ] = "demo",
    trials: Annotated[int, typer.Option(min=1, help="Number of trials, in each way.")] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs per trial; default: as the space says.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Processes that train at once.")] = 2,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each way; the medians count.")] = 1,
    *,
    output: OutputOptions,
) -> None:
    """Time the same trials in reused processes, each as a run of Ray Train, and in stacks."""
    from distvae.bench.sweep import bench_sweep

    bench_sweep(space, (trials, epochs, concurrent), turns, output.output())


@command(app)
def stack(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml")] = "speech-vae",
    trainings: Annotated[int, typer.Option(min=2, max=64, help="Number of trainings.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 32,
    steps: Annotated[int, typer.Option(min=10, help="Steps of each training in a turn.")] = 40,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 9,
    *,
    output: OutputOptions,
) -> None:
    """Time steps of several trainings of one shape, one after another and stacked, in turns."""
    from distvae.bench.stack import StackSize, bench_stack

    bench_stack(recipe, StackSize(trainings, batch, steps, turns), output.output())


@command(app)
def population(
    space: Annotated[
        str, typer.Argument(metavar="SPACE|FILE.yaml", help="A space with a population.")
    ] = "bars-population",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the search.")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs per trial; default: as the space says.")
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Compare population-based training with random search after as many epochs."""
    from distvae.bench.population import bench_population

    bench_population(space, seeds, epochs, output.output())
