"""Benchmarks: one command for each claim about speed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.cli.command import command
from distvae.commands.options import AsJson

if TYPE_CHECKING:
    from distvae.bench.output import Output

app = typer.Typer(
    no_args_is_help=True, help="Time parts of the program beside the least that they must do."
)

Steps = Annotated[int, typer.Option(min=10, help="Number of steps to time.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the process.")]
Rows = Annotated[
    int, typer.Option(min=1024, help="Patches to train on; times are scaled to all of them.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs to train before one is timed.")]
Picture = Annotated[
    Path | None, typer.Option(help="Picture to take patches from; default: a drawn scene.")
]


@dataclass(frozen=True)
class OutputOptions:
    """The output of a benchmark."""

    json: AsJson = False
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep the figures as rows in this folder, for 'distvae results'."),
    ] = None

    def output(self) -> "Output":
        """Return how figures are printed and kept."""
        from distvae.bench.output import Output

        return Output(self.json, self.keep)


@dataclass(frozen=True)
class GpuOptions:
    """The device of `distvae bench gpu`, and how long to train on it."""

    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device to train on.")] = (
        "auto"
    )
    rows: Annotated[int, typer.Option(min=1024, help="Maximum number of rows to train on.")] = (
        60_000
    )
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to time, after one that is not.")] = 3
    threads: Threads = 1


@command(app)
def steps(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe with an encoder; default: all of them."),
    ] = None,
    steps: Steps = 200,
    threads: Threads = 1,
    *,
    output: OutputOptions,
) -> None:
    """Time a training step beside the matrix products of its shapes."""
    from distvae.bench.steps import bench_steps

    bench_steps(recipe, steps, threads, output.output())


@command(app)
def tvae(
    picture: Picture = None,
    rows: Rows = 6000,
    epochs: Epochs = 20,
    threads: Threads = 1,
    *,
    output: OutputOptions,
) -> None:
    """Time an epoch of TVAE beside the matrix products of the dense algorithm."""
    from distvae.bench.tvae import bench_tvae

    bench_tvae(picture, rows, epochs, threads, output.output())


@command(app)
def gpu(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="big, s64, vsc-32, ...; default: all of them."),
    ] = None,
    *,
    options: GpuOptions,
    output: OutputOptions,
) -> None:
    """Time epochs on a GPU beside their matrix products. Where only torch is installed: python -m
    distvae.bench.gpu.
    """
    from distvae.bench.gpu import GpuSettings, bench_gpu

    settings = GpuSettings(options.device, options.rows, options.epochs, options.threads)
    bench_gpu(cases or [], settings, output.output())


@command(app)
def team(steps: Steps = 200, *, output: OutputOptions) -> None:
    """Time the sum of a gradient over two workers of one machine, in each way."""
    from distvae.bench.team import bench_team

    bench_team(steps, output.output())


@command(app)
def workers(
    picture: Picture = None,
    rows: Rows = 6000,
    epochs: Epochs = 20,
    turns: Annotated[int, typer.Option(min=1, help="Times that each way is run.")] = 3,
    *,
    output: OutputOptions,
) -> None:
    """Time two workers beside one, by torchrun and under Ray, all from one trained run."""
    from distvae.bench.workers import bench_workers

    bench_workers(picture, rows, epochs, turns, output.output())


@command(app)
def store(
    rows: Annotated[int, typer.Option(min=1024, help="Number of rows.")] = 6000,
    shards: Annotated[
        int, typer.Option(min=1, help="Number of processes that hold populations.")
    ] = 4,
    blocks: Annotated[int, typer.Option(min=10, help="Number of blocks to read and write.")] = 200,
    storage: Annotated[
        Path | None, typer.Option(help="Folder to save to; default: a temporary one.")
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """Time populations of many rows in shards: initialising, a block, saving, loading."""
    from distvae.bench.store import bench_store

    bench_store(rows, shards, blocks, storage, output.output())


@command(app)
def sweep(
    space: Annotated[
        str, typer.Argument(metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.")
    ] = "demo",
    trials: Annotated[int, typer.Option(min=1, help="Number of trials, in each way.")] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs per trial; default: as the space says.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Trials that run at once.")] = 2,
    *,
    output: OutputOptions,
) -> None:
    """Time the same trials in processes that are reused, and each as a run of Ray Train."""
    from distvae.bench.sweep import bench_sweep

    bench_sweep(space, trials, epochs, concurrent, output.output())
