"""Restoring one picture or sound."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distvae.cli.options import AsJson, Assignments, Force, Quiet, style

app = typer.Typer()

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN", help="A PNG, TIFF or JPEG picture, or a wav, flac, ogg or mp3 sound."
    ),
]
Picture = Annotated[Path, typer.Argument(metavar="IN", help="A PNG, TIFF or JPEG picture.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="Where the result goes.")]
WhichPreset = Annotated[
    Literal["fast", "balanced", "paper"],
    typer.Option(
        "--preset",
        help="How much time to spend; 'balanced' may fit strong noise, 'paper' is as published.",
    ),
]
WhichRecipe = Annotated[
    str | None, typer.Option("--recipe", help="A recipe or FILE.yaml instead of a preset.")
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, help="From one window to the next: larger is cheaper, and coarser."),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Of training, and of the damage that is done first.")
]
Clean = Annotated[
    Path | None, typer.Option(help="A clean reference to compare with, for the eye only.")
]
Drawn = Annotated[
    Path | None,
    typer.Option("--figure", help="Draw before, after and reference: .png, .pdf or .svg."),
]
KeptRun = Annotated[
    Path | None, typer.Option("--run", help="Keep the run in this folder, for --resume.")
]
GoOn = Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")]


@app.command()
def denoise(
    source: Source,
    target: Target,
    assignments: Assignments = None,
    preset: WhichPreset = "fast",
    recipe: WhichRecipe = None,
    stride: Stride = None,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="First add white noise: of 255, or of a sound's largest sample; as data.noise.",
        ),
    ] = None,
    seed: Seed = 0,
    clean: Clean = None,
    figure: Drawn = None,
    run: KeptRun = None,
    resume: GoOn = False,
    force: Force = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Remove noise of unknown strength from one picture or sound, from itself alone; Ctrl-C keeps
    the result so far.
    """
    from distvae.commands import restore

    settings = restore.settings(assignments or [], stride, seed, noise)
    options = restore.Options(
        preset, recipe, settings, clean, figure, run, resume, force, style(quiet, json)
    )
    restore.denoise(source, target, options)


@app.command()
def inpaint(
    source: Picture,
    target: Target,
    assignments: Assignments = None,
    mask: Annotated[
        Path | None, typer.Option(help="A picture of the same size, not black where IN is missing.")
    ] = None,
    missing_value: Annotated[
        float | None, typer.Option(help="What missing pixels hold, in all channels.")
    ] = None,
    drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="First drop this share, to fill in again; as data.drop."),
    ] = None,
    preset: WhichPreset = "fast",
    recipe: WhichRecipe = None,
    stride: Stride = None,
    seed: Seed = 0,
    clean: Clean = None,
    figure: Drawn = None,
    run: KeptRun = None,
    resume: GoOn = False,
    force: Force = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Fill in the missing pixels of one picture, from itself alone; the observed ones are kept."""
    from distvae.commands import restore

    settings = restore.settings(assignments or [], stride, seed, drop=drop)
    options = restore.Options(
        preset, recipe, settings, clean, figure, run, resume, force, style(quiet, json)
    )
    restore.inpaint(source, target, mask, missing_value, options)
