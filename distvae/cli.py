"""The command line. Nothing heavy is imported before a command runs, so that every --help is quick."""

import errno
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from distvae.refusal import Refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and tune variational autoencoders with sparse, dictionary and binary latents.",
)

Assignments = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as train.epochs=3.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'distvae train' made.")]
Data = Annotated[str | None, typer.Option(help="Folder of data; else $DISTVAE_DATA, else the built-in speech.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output, for programs.")]
Split = Literal["train", "val", "test", "all"]
WhichSplit = Annotated[Split, typer.Option(help="Which part of the data.")]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="See 'distvae recipes'.")],
    assignments: Assignments = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False,
    seed: Annotated[int | None, typer.Option(help="The same as train.seed=N.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: AsJson = False,
    evaluate: Annotated[bool, typer.Option(help="Judge the trained model on the test split.")] = True,
    track: Annotated[bool, typer.Option(help="Record the run in MLflow.")] = True,
    workers: Annotated[
        str, typer.Option(metavar="N|LEAST:MOST", help="Processes that train together under Ray; 0: this one alone.")
    ] = "0",
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs of each of these processes.")] = 0.0,
    address: Annotated[str | None, typer.Option(help="Of a Ray that runs; else one is started here.")] = None,
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="For machines that are still to come.")] = 0.0,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Keep the run where all machines reach it: a path, s3://bucket/runs."),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Go on from the checkpoint before the last, if that is damaged.")
    ] = False,
) -> None:
    """Train a model into a run folder; Ctrl-C leaves a checkpoint that --resume goes on from."""
    from distvae import jobs

    style: Literal["line", "quiet", "json"] = "quiet" if quiet else "json" if json else "line"
    config = jobs.configured(recipe, assignments or [], data, seed)
    group = jobs.group(workers, gpus_per_worker, address, wait)
    name = jobs.title(recipe)
    jobs.train(config, name, out, resume or previous, force, style, evaluate, track, group, storage, previous)


@app.command()
def evaluate(
    run: RunFolder,
    assignments: Assignments = None,
    data: Data = None,
    split: WhichSplit = "test",
    out: Annotated[
        Path | None, typer.Option(help="Where tables and pictures go; default RUN/evaluation/SPLIT.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Judge a run: scores per file and speaker, sparsity of its codes, pictures, a sound before and after."""
    from distvae import jobs

    jobs.evaluate(run, assignments or [], data, split, out, force, quiet)


@app.command()
def resynthesize(run: RunFolder, source: Path, target: Path, force: Force = False) -> None:
    """Pass one recording through a model and write what comes back."""
    from distvae.tasks.resynthesis import resynthesize_file
    from distvae.train.run import Run

    resynthesize_file(Run.open(run), source, target, force)


@app.command()
def encode(
    run: RunFolder,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder of data, of the kind the run was trained on.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The Parquet file to write.")],
    split: WhichSplit = "all",
    force: Force = False,
) -> None:
    """Write the codes of data, with where each came from, to a Parquet file."""
    from distvae import jobs

    jobs.encode(run, data, out, split, force)


@app.command()
def sample(
    run: RunFolder,
    target: Annotated[Path, typer.Argument(metavar="PICTURE", help="A .png, .pdf or .svg; the values go beside it.")],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many draws.")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    force: Force = False,
) -> None:
    """Draw from a model's prior."""
    from distvae.tasks.codes import sample
    from distvae.train.run import Run

    sample(Run.open(run), target, count, seed, force)


@app.command()
def show(run: RunFolder) -> None:
    """What a run is, how its training went, and how it was judged."""
    from distvae import jobs

    jobs.show(run)


@app.command()
def check(
    run: RunFolder,
    exact: Annotated[bool, typer.Option("--exact", help="Also enumerate all states of binary latents.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Training data points to compare, with --exact.")] = 1000,
) -> None:
    """Check that a run's files are whole, and its bound against the exact likelihood."""
    from distvae import jobs

    jobs.check(run, exact, rows)


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Each .npy, .parquet, .arrow, .feather.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    val: Annotated[float, typer.Option(help="Share of the rows to validate on; 0: on those to train on.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of the rows to test on; 0: on those to validate on.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the rows.")] = 0,
    rows_per_file: Annotated[int | None, typer.Option(min=1, help="Instead of 256 MB of them.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Mix the rows of tables of numbers, however large, into a folder to train on with data.kind=rows."""
    from distvae.data.ingest import ingest

    told = ingest(sources, out, val, test, seed, rows_per_file, force, quiet)
    if not quiet:
        print(told)


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one, and all it resolves to.")] = None) -> None:
    """List the recipes, or show one."""
    from distvae import jobs

    jobs.recipes(name)


@app.command()
def spaces() -> None:
    """List the search spaces that 'distvae tune' knows by name."""
    from distvae.tune.reading import space_names

    for name, about in space_names().items():
        print(f"{name:16}{about}")


@app.command()
def tune(
    space: Annotated[str, typer.Argument(metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.")],
    assignments: Assignments = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default runs/SPACE.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many, instead of what the space says.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials side by side.")] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Sweep a search space: quality against sparsity, every trial recorded in MLflow."""
    from distvae import jobs

    jobs.tune(space, assignments or [], data, out, trials, concurrent, force, quiet)


@app.command()
def bench(
    recipe: Annotated[str | None, typer.Argument(help="A recipe, tvae, store or team; all recipes without it.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Training steps to time; store: blocks.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the process.")] = 1,
    json: AsJson = False,
    keep: Annotated[
        Path | None, typer.Option(help="Folder of rows for 'distvae results' to keep the figures in.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=1024, help="tvae: patches to train on; times are for all of them. store: rows to hold.")
    ] = 6000,
    epochs: Annotated[int, typer.Option(min=1, help="tvae: to train before one is timed.")] = 20,
    picture: Annotated[Path | None, typer.Option(help="tvae: where patches come from; else a drawn scene.")] = None,
    shards: Annotated[int, typer.Option(min=1, help="store: processes that hold populations.")] = 4,
    storage: Annotated[Path | None, typer.Option(help="store: the folder to write to; else a temporary one.")] = None,
) -> None:
    """Time a training step beside the products of its shapes; tvae: beside its bound; store, team: shards, sums."""
    if recipe == "tvae":
        from distvae.bench import tvae

        tvae.report(picture, rows, epochs, threads, json, keep)
    elif recipe == "team":
        from distvae.bench import team

        team.report(steps, json, keep)
    elif recipe == "store":
        from distvae.bench import store

        store.report(rows, shards, steps, json, keep, storage)
    else:
        from distvae import bench

        bench.report(recipe, steps, threads, json, keep)


@app.command()
def results(
    rows: Annotated[Path, typer.Argument(help="Folder of finished rows, one JSON each.")] = Path("docs/results"),
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the page goes; else standard output.")] = None,
    add: Annotated[Path | None, typer.Option(help="First add an evaluated run as a row of --table.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="First judge identity or pca-COUNT; with --noise zero, local, wiener or stsa on a sound."),
    ] = None,
    table: Annotated[str, typer.Option(help="The table a new row belongs to.")] = "runs",
    data: Data = None,
    noise: Annotated[float | None, typer.Option(min=0, help="White noise to add to the sound in --data.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that noise.")] = 0,
    force: Force = False,
) -> None:
    """Build the page of results from its rows, and first, if wanted, add one."""
    from distvae import jobs, results

    if add is not None:
        results.add(rows, add, table, force)
    if reference is not None and noise is not None:
        results.add_estimate(rows, reference, Path(data or ""), noise, seed, table, force)
    elif reference is not None:
        results.add_reference(rows, reference, jobs.configured("speech-vae", [], data, None), table, force)
    results.build(rows, out)


Source = Annotated[Path, typer.Argument(metavar="IN", help="A PNG, TIFF or JPEG picture, or a wav or flac sound.")]
Picture = Annotated[Path, typer.Argument(metavar="IN", help="A PNG, TIFF or JPEG picture.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="Where the result goes.")]
WhichPreset = Annotated[
    Literal["fast", "balanced", "paper"],
    typer.Option("--preset", help="How much time to spend; 'paper': as published."),
]
WhichRecipe = Annotated[str | None, typer.Option("--recipe", help="A recipe or FILE.yaml instead of a preset.")]
Stride = Annotated[int | None, typer.Option(min=1, help="From one window to the next: larger is cheaper, and coarser.")]
Seed = Annotated[int, typer.Option(min=0, help="Of training, and of what --noise or --drop does.")]
Clean = Annotated[Path | None, typer.Option(help="A clean reference to compare with, for the eye only.")]
Drawn = Annotated[Path | None, typer.Option("--figure", help="Draw before, after and reference: .png, .pdf or .svg.")]
KeptRun = Annotated[Path | None, typer.Option("--run", help="Keep the run in this folder, for --resume.")]
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
        float | None, typer.Option(min=0, help="First add white noise: of 255, or of a sound's largest sample.")
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
    """Remove noise of unknown strength from one picture or sound, from itself alone; Ctrl-C keeps the result so far."""
    from distvae import restore

    style: Literal["line", "quiet", "json"] = "quiet" if quiet else "json" if json else "line"
    settings = restore.settings(assignments or [], stride, seed)
    options = restore.Options(preset, recipe, settings, clean, figure, run, resume, force, style)
    restore.denoise(source, target, noise, seed, options)


@app.command()
def inpaint(
    source: Picture,
    target: Target,
    assignments: Assignments = None,
    mask: Annotated[
        Path | None, typer.Option(help="A picture of the same size, not black where IN is missing.")
    ] = None,
    missing_value: Annotated[float | None, typer.Option(help="What missing pixels hold, in all channels.")] = None,
    drop: Annotated[float | None, typer.Option(min=0, max=1, help="First drop this share, to fill in again.")] = None,
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
    from distvae import restore

    style: Literal["line", "quiet", "json"] = "quiet" if quiet else "json" if json else "line"
    settings = restore.settings(assignments or [], stride, seed)
    options = restore.Options(preset, recipe, settings, clean, figure, run, resume, force, style)
    restore.inpaint(source, target, restore.finder(mask, missing_value, drop, seed), drop is not None, options)


def main() -> None:
    """Run a command; what goes wrong is said in a sentence, and the exit code says whose turn it is."""
    try:
        app()
    except Refusal as error:
        _leave(str(error), 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _leave(f"{error.filename or 'a file'}: no room left on the disk; what was finished before is kept", 2)
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def _leave(text: str, code: int) -> None:
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(code)
