"""`distvae tune` sweeps a search space. `report`, `reproduce` and `baseline` compare models with
each other, with published tables and with baselines.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.cli.options import (
    RUN_HELP,
    RUNS,
    START,
    AsJson,
    Assignments,
    Data,
    Force,
    Quiet,
    Recipe,
    TrialOptions,
    command,
    complete_run,
    complete_space,
    complete_table,
    print_next,
    progress_style,
    run_callback,
)
from distvae.config.recipes import parse_assignments
from distvae.files.paths import check_writable_folder
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.reproduce.table import Line, Table
    from distvae.tune.results import Findings

app = typer.Typer(rich_help_panel="Compare models")

WIDTH = 200
"""Characters of a line of a comparison, whatever the width of the terminal."""


@dataclass(frozen=True)
class TuneOptions:
    """The options of `distvae tune`."""

    data: Data = None
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FOLDER|URI")] = None
    """Folder of the sweep; default runs/SPACE, or runs/SPACE-sweep where a recipe has that name.
    s3://bucket/NAME keeps the trials in a bucket and the sweep in runs/NAME."""
    trials: Annotated[int | None, typer.Option(min=1, max=10000)] = None
    """Number of trials, or size of a population; default: as the space says."""
    concurrent: Annotated[int | None, typer.Option(min=1, max=10000)] = None
    """Trials that run at once; default: as the space says, otherwise as many as fit."""
    resume: bool = False
    """Resume the sweep in that folder."""
    force: Force = False
    keep_tune: Annotated[bool, typer.Option(hidden=True)] = False
    """Keep the experiment of Ray Tune in OUT/tune, with a result for each epoch."""
    quiet: Quiet = False


@command(app, "tune speech --data ~/recordings --trials 40", START)
def tune(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|FILE.yaml", help="See 'distvae recipes'.", autocompletion=complete_space
        ),
    ],
    assignments: Assignments = None,
    *,
    options: TuneOptions,
    trial_options: TrialOptions,
) -> None:
    """Sweep a search space for quality against sparsity; every trial is recorded in MLflow."""
    from distvae.report import write_and_log
    from distvae.tune.results import print_findings
    from distvae.tune.space import sweep_name
    from distvae.tune.sweep import SweepOptions, run_sweep
    from distvae.tune.validation import load_space

    refuse_missing("a sweep", "ray", "optuna", "mlflow")
    resources = trial_options.resources()
    searched = load_space(space)
    out, storage = Path(options.out or RUNS / sweep_name(searched.name)), ""
    if options.out and "://" in options.out:
        storage, place = options.out, options.out.partition("?")[0]
        out = RUNS / place.rstrip("/").rpartition("/")[2]
    sweep_options = SweepOptions(
        assignments=parse_assignments(assignments or []),
        data=options.data or "",
        trials=options.trials,
        concurrent=options.concurrent,
        resume=options.resume,
        force=options.force,
        keep_tune=options.keep_tune,
        quiet=options.quiet,
        storage=storage,
    )
    findings = run_sweep(searched, out, sweep_options, resources)
    if not options.quiet:
        print_findings(findings)
    write_and_log(findings.folder, RUNS, options.quiet)
    if findings.finished and not options.quiet:
        print_next("distvae", "show", f"best:{next(iter(findings.metrics))}@{findings.folder.name}")
    raise SystemExit(findings.exit_code)


@command(app, "report runs/speech")
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SWEEP|RUN",
            callback=run_callback,
            help=RUN_HELP,
            autocompletion=complete_run,
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File to write; default report.html in that folder."),
    ] = None,
    force: Force = False,
) -> None:
    """Write one self-contained HTML page about a sweep or a run."""
    from distvae.report import log, write

    page = write(source, out, force)
    print(page)
    if out is None:
        log(source, page, RUNS)


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `distvae reproduce`."""

    data: str = ""
    """Folder with the data that the table needs; default $DISTVAE_DATA."""
    only: Annotated[list[str] | None, typer.Option(metavar="ROWS")] = None
    """Only rows with this name or pattern; may be repeated."""
    scale: Literal["smoke", "day", "full"] = "full"
    """full: as published; day: about a day on two cores; smoke: only test that it runs."""
    seeds: Annotated[int | None, typer.Option(min=1, max=1000)] = None
    """Seeds for each row; default: as the table says."""
    plan: bool = False
    """Only print the rows and the estimated time; needs no data."""
    out: Annotated[Path | None, typer.Option("-o", "--out")] = None
    """Folder of the runs; default runs/reproduce/TABLE."""
    rows: Path | None = None
    """Folder of the finished rows, a file for each table; default OUT/rows."""
    concurrent: Annotated[int | None, typer.Option(min=1, max=10000)] = None
    """Rows trained at once; default: as many as fit."""
    resume: bool = False
    """Resume the rows in that folder; --only adds rows to them."""
    force: Force = False
    quiet: Quiet = False


@command(app, "reproduce house --data ~/pictures --plan")
def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(
            help="Name of a table; without one, the tables are listed.",
            autocompletion=complete_table,
        ),
    ] = None,
    *,
    options: ReproduceOptions,
    trial_options: TrialOptions,
) -> None:
    """Reproduce a published table: results obtained here beside the published ones."""
    from distvae.reproduce.figures import draw_figures
    from distvae.reproduce.run import ROWS, Reproduction, Work, describe_plan
    from distvae.reproduce.table import (
        compare_rows,
        read_table,
        table_names,
        write_comparison,
    )
    from distvae.tune.sweep import SweepOptions

    if table is None:
        width = max(map(len, table_names())) + 2
        for name in table_names():
            print(f"{name:{width}}{read_table(name).about}")
        return
    resources = trial_options.resources()
    out = options.out or RUNS / "reproduce" / table
    selected = select_rows(table, options, out)
    if options.plan:
        print("\n".join(describe_plan(selected)))
        return
    check_writable_folder(out)
    check_writable_folder(options.rows or out)
    work = Work.of(selected, options.data)
    if not options.quiet:
        print(*describe_plan(work.table), *work.missing, sep="\n", file=sys.stderr)
    sweep_options = SweepOptions(
        concurrent=options.concurrent,
        resume=options.resume,
        force=options.force,
        quiet=options.quiet,
    )
    reproduction = Reproduction(work, out, options.rows or out / ROWS, resources, sweep_options)
    findings = reproduction.run()
    lines = compare_rows(selected, reproduction.rows)
    drawn = draw_figures(selected, reproduction.rows, out)
    files = [write_comparison(lines, out), *drawn]
    if findings is not None:
        record_comparison(out, files, options.quiet)
    if not options.quiet:
        print_comparison(lines, selected, findings)
        for path in drawn:
            print(f"{path}: a figure of the paper, from these rows", file=sys.stderr)
    raise SystemExit(0 if findings is None else findings.exit_code)


def select_rows(name: str, options: ReproduceOptions, out: Path) -> "Table":
    """Return a table with the rows of `--only` and the rows of a resumed folder."""
    from distvae.reproduce.run import started_rows
    from distvae.reproduce.table import read_table

    patterns = options.only or ["*"]
    complete = read_table(name, options.scale)
    seeds = options.seeds or complete.seeds
    minutes = complete.minutes and complete.minutes * seeds / complete.seeds
    complete = replace(complete, seeds=seeds, minutes=minutes)
    table = complete.only(patterns)
    if options.resume and table.trained:
        started = started_rows(out)
        for row in started:
            if not any(entry.matches([row]) for entry in complete.entries):
                raise Refusal(
                    f"--resume: {out} was begun with a row {row}, which {name} does not have at"
                    f" scale {options.scale}; the table and the scale of before expected"
                )
        table = complete.only([*patterns, *started])
    if not table.trained and not table.baselines:
        raise Refusal(
            f"--only: {', '.join(patterns)}: nothing to obtain at scale {options.scale}; other rows"
            " or scale expected"
        )
    return table


def record_comparison(out: Path, files: Sequence[Path], quiet: bool) -> None:
    """Add the comparison and its figures to the record in MLflow, and write the report."""
    from distvae.report import write_and_log
    from distvae.track import Store, Tracker

    if record := Tracker.of_folder(out, Store.find(RUNS)):
        record.files(files, "results")
        record.wait()
    write_and_log(out, RUNS, quiet)


def print_comparison(lines: "list[Line]", table: "Table", findings: "Findings | None") -> None:
    """Print the comparison, the source of the published figures, and what is left to do after a
    command that was stopped. Baselines are evaluated last, so they may be missing too.
    """
    from rich.console import Console

    from distvae.reproduce.table import comparison_table, notes_on
    from distvae.tune.results import LAST_WORDS

    if lines:
        Console(width=WIDTH, markup=False, emoji=False).print(comparison_table(lines))
    for note in notes_on(lines):
        print(note)
    print(f"published: {table.source}")
    if findings is not None and findings.interrupted:
        print(LAST_WORDS["trials" if table.baselines else findings.left])


@command(app, "baseline pca-32 speech-vae --data ~/recordings")
def baseline(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "For speech: identity, pca-COUNT, nmf-COUNT; for a picture: nlm, wavelet, tv,"
                " bm3d, biharmonic; for a sound: zero, local, wiener, stsa, linear, ar."
            ),
        ),
    ],
    recipe: Recipe,
    assignments: Assignments = None,
    *,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Evaluate a baseline on the data of a recipe, in the same way as the models."""
    from distvae.cli.train import configure
    from distvae.cli.use import print_scores
    from distvae.tasks.baselines import score_baseline

    config = configure(recipe, assignments or [], data)
    scores = score_baseline(name, config, progress=True)
    print_scores(scores, progress_style(quiet=False, json=json))
