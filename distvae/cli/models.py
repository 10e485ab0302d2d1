"""Commands that train a model or use a trained one."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.check import check_run
from distvae.commands.completion import complete_setting
from distvae.commands.encode import encode_data, resynthesize_recording, sample_prior
from distvae.commands.evaluate import EvaluateOptions, evaluate_run
from distvae.commands.options import (
    Assignments,
    Force,
    Recipe,
    RunFolder,
    WhichSplit,
    WorkerOptions,
)
from distvae.commands.push import push_run
from distvae.commands.show import show_run
from distvae.commands.train import train_recipe
from distvae.commands.training import TrainOptions

app = typer.Typer(rich_help_panel="Train a model and use it")


@command(app)
def train(
    recipe: Recipe,
    assignments: Assignments = None,
    *,
    options: TrainOptions,
    workers: WorkerOptions,
) -> None:
    """Train a model into a run folder. Ctrl-C saves a checkpoint, from which --resume continues."""
    train_recipe(recipe, assignments or [], options, workers)


@command(app)
def evaluate(
    run: RunFolder,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change, of sections eval and data, such as eval.importance=500.",
            autocompletion=complete_setting,
        ),
    ] = None,
    *,
    options: EvaluateOptions,
) -> None:
    """Evaluate a run: scores per file and speaker, sparsity of its codes, pictures, and a sound
    before and after.
    """
    evaluate_run(run, assignments or [], options)


@command(app)
def resynthesize(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The sound file to write.")],
    force: Force = False,
) -> None:
    """Encode and decode one recording with a trained model."""
    resynthesize_recording(run, source, target, force)


@command(app)
def encode(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help=(
                "A folder, an .npz, one recording or picture, or a URI of data of the kind that the"
                " run was trained on."
            ),
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write.")],
    split: WhichSplit = "all",
    force: Force = False,
) -> None:
    """Write the codes of data into a Parquet file. Columns say where each code comes from: the
    file, speaker, split and frame of recordings, the split and row of other data, the file of
    pictures, and labels where there are any.
    """
    encode_data(run, data, out, split, force)


@command(app)
def sample(
    run: RunFolder,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE",
            help="The .png, .pdf or .svg to write; the values go beside it as .npy.",
        ),
    ],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Number of samples.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the samples.")] = 0,
    force: Force = False,
) -> None:
    """Draw samples from a model's prior."""
    sample_prior(run, target, count, seed, force)


@command(app)
def show(run: RunFolder) -> None:
    """Print the settings of a run, how its training went, and its scores."""
    show_run(run)


@command(app)
def check(
    run: RunFolder,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Also compare the bound with the exact likelihood of binary latents."
        ),
    ] = False,
    rows: Annotated[
        int, typer.Option(min=1, help="Number of training rows to compare with --exact.")
    ] = 1000,
) -> None:
    """Check that a run's files are complete; with --exact, also its bound against log p(x)."""
    check_run(run, exact, rows)


@command(app)
def push(
    run: RunFolder,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A new folder, or hf://OWNER/NAME for the hub.")
    ],
) -> None:
    """Write a trained model with a card to a folder or the Hugging Face hub."""
    push_run(run, destination)
