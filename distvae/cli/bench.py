"""Benchmarks: one command for each claim about speed."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.cli.command import command
from distvae.commands.options import AsJson, Assignments, Data, Recipe

if TYPE_CHECKING:
    from distvae.bench.batches import Sizes
    from distvae.bench.output import Output

app = typer.Typer(
    no_args_is_help=True, help="Time parts of the program against the least work they must do."
)

TURNS = 5
"""Turns of each program beside another, unless told."""
PEER_EPOCHS = 100
"""Epochs that another program may take to reach a quality."""
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
class BesideOptions:
    """Another program that a benchmark trains beside this one."""

    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Checkout of another program, to train in turns with this one. For 'bench tvae':"
            " tvo. For 'bench steps': pythae or the reproduction of VSC.",
        ),
    ] = None
    turns: Annotated[
        int | None, typer.Option(min=1, help="Turns of each program with --beside; default: 5.")
    ] = None

    def checkout(self) -> Path | None:
        """Return the folder of the other program. Refuse turns without one."""
        if self.beside is None and self.turns is not None:
            from distvae.files.refusal import Refusal

            raise Refusal("--turns: nobody to take turns with; --beside PATH expected")
        return self.beside


@dataclass(frozen=True)
class ReachOptions(BesideOptions):
    """Another program, and what both may have to reach."""

    reach: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            min=0.0,
            help="With --beside: train both from nothing until the picture, restored from noise"
            " of 25, has this PSNR.",
        ),
    ] = None

    def refuse_turns(self) -> None:
        """Refuse a number of turns, which is what it takes to reach the quality."""
        if self.turns is not None:
            from distvae.files.refusal import Refusal

            raise Refusal("--turns: both train as long as --reach takes; omit --turns")


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
    graphs: Annotated[
        bool, typer.Option("--graphs/--no-graphs", help="Record steps and replay them.")
    ] = True
    tf32: Annotated[bool, typer.Option("--tf32", help="Multiply in TF32.")] = False


@command(app)
def steps(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe with an encoder; default: all of them."),
    ] = None,
    steps: Steps = 200,
    threads: Threads = 1,
    *,
    beside: BesideOptions,
    output: OutputOptions,
) -> None:
    """Time a training step beside the matrix products of its shapes, Adam, and autograd; or with
    --beside another program's step of the same model, 784-400-200 in batches of 32.
    """
    from distvae.bench.steps import bench_steps
    from distvae.files.refusal import Refusal

    checkout = beside.checkout()
    if checkout is None:
        return bench_steps(recipe, steps, threads, output.output())
    if recipe is not None:
        raise Refusal(f"{recipe}: with --beside the other program says what is trained")
    from distvae.bench.beside.steps import StepsContest, bench_steps_beside

    contest = StepsContest(steps, threads, beside.turns or TURNS)
    return bench_steps_beside(checkout, contest, output.output())


def _reach(
    checkout: Path | None, picture: Path | None, psnr: float, threads: int, output: "Output"
) -> None:
    """Time how long two programs take to restore a picture."""
    from distvae.files.refusal import Refusal

    if checkout is None or picture is None:
        raise Refusal("--reach: --beside and --picture expected too")
    from distvae.bench.beside.reach import Goal, bench_reach

    bench_reach(checkout, picture, Goal(psnr, PEER_EPOCHS, threads), output)


@command(app)
def tvae(
    picture: Picture = None,
    rows: Rows = 8192,
    epochs: Epochs = 20,
    threads: Threads = 1,
    *,
    beside: ReachOptions,
    output: OutputOptions,
) -> None:
    """Time an epoch of TVAE beside the matrix products of the dense algorithm, or with --beside
    another program's epoch from the same trained states.
    """
    from distvae.bench.tvae import bench_tvae

    checkout = beside.checkout()
    if beside.reach is not None:
        beside.refuse_turns()
        return _reach(checkout, picture, beside.reach, threads, output.output())
    if checkout is None:
        return bench_tvae(picture, rows, epochs, threads, output.output())
    from distvae.bench.beside.tvae import TvaeContest, bench_tvae_beside

    contest = TvaeContest(rows, epochs, threads, beside.turns or TURNS)
    return bench_tvae_beside(checkout, picture, contest, output.output())


@command(app)
def gpu(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="big, s64, bsc, ...; default: all of them."),
    ] = None,
    *,
    options: GpuOptions,
    output: OutputOptions,
) -> None:
    """Time epochs on a GPU beside their matrix products. Where only torch is installed: python -m
    distvae.bench.gpu.
    """
    from distvae.bench.gpu import GpuSettings, bench_gpu

    settings = GpuSettings(**asdict(options))
    bench_gpu(cases or [], settings, output.output())


@dataclass(frozen=True)
class BatchesOptions:
    """The batches that a recipe is trained in."""

    data: Data = None
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training; default: the recipe's.")
    ] = None
    rows: Annotated[
        int | None,
        typer.Option(
            min=64, help="About how many rows to train on; default: all. Not for pictures."
        ),
    ] = None
    batches: Annotated[str, typer.Option(metavar="N,N,...", help="Batches to train in.")] = (
        "32,128,512,2048"
    )
    rates: Annotated[
        str, typer.Option(metavar="WAY,WAY,...", help="Ways of train.scale_rate to compare.")
    ] = "none,root,linear"
    same_time: Annotated[
        bool,
        typer.Option(
            "--same-time",
            help="Train each also for as many epochs as take the processor time of the base.",
        ),
    ] = False
    plot: Annotated[
        Path | None, typer.Option(help="Draw quality against the batch into this file.")
    ] = None

    def sizes(self) -> "Sizes":
        """Return the batches to train in."""
        from distvae.bench.batches import Sizes
        from distvae.config.schema import check_value
        from distvae.config.train import Scaling
        from distvae.config.values import Widths
        from distvae.files.untrusted import parse_yaml

        sizes = check_value("--batches", Widths, parse_yaml(f"[{self.batches}]", "--batches"))
        ways = check_value("--rates", tuple[Scaling, ...], self.rates.split(","))
        return Sizes(sizes, ways, self.same_time, self.rows)

    def settings(self) -> list[str]:
        """Return the settings that these options stand for."""
        return [] if self.epochs is None else [f"train.epochs={self.epochs}"]


@command(app)
def batches(
    recipe: Recipe,
    assignments: Assignments = None,
    *,
    options: BatchesOptions,
    output: OutputOptions,
) -> None:
    """Train a recipe in batches of several sizes, with its rates held and scaled, and compare
    quality and processor time. With --keep, finished trainings are not repeated.
    """
    from distvae.bench.batches import bench_batches
    from distvae.commands.configuration import configure

    settings = [*options.settings(), *(assignments or [])]
    base = configure(recipe, settings, options.data)
    bench_batches(Path(recipe).stem, base, options.sizes(), output.output(), options.plot)


@command(app)
def linear_start(
    recipe: Recipe = "natural-deep",
    rows: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 32,
    states: Annotated[int, typer.Option(min=1, help="States of each row.")] = 200,
    active: Annotated[int, typer.Option(min=1, help="Expected active bits of a state.")] = 14,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 20,
    *,
    output: OutputOptions,
) -> None:
    """Time the scores of states by a decoder that begins linear, by its last layer alone and by
    all layers, in turns.
    """
    from distvae.bench.linear_start import StatesExtent, bench_linear_start

    extent = StatesExtent(rows, states, active, turns)
    bench_linear_start(recipe, extent, output.output())
