"""`distvae reproduce`: train the rows of a published table, and compare the results with it."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.commands.options import RUNS, Force, Quiet, TrialOptions
from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.reproduce.compare import Line
    from distvae.reproduce.table import Table
    from distvae.tune.results import Findings

WIDTH = 200
"""Characters of a line, which is not wrapped at the width of the terminal."""


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `distvae reproduce`."""

    data: Annotated[
        str, typer.Option(help="Folder with the data that the table needs; default $DISTVAE_DATA.")
    ] = ""
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROWS", help="Only rows with this name or pattern; may be repeated."),
    ] = None
    scale: Annotated[
        Literal["smoke", "day", "full"],
        typer.Option(
            help="full: as published; day: about a day on two cores; smoke: only test that it runs."
        ),
    ] = "full"
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Seeds for each row; default: as the table says."),
    ] = None
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only print the rows and the estimated time; needs no data."),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the runs; default runs/reproduce/TABLE."),
    ] = None
    rows: Annotated[
        Path | None,
        typer.Option(help="Folder of the finished rows, a file for each table; default OUT/rows."),
    ] = None
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Rows trained at once; default: as many as fit."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the rows in that folder; --only adds rows to them."),
    ] = False
    force: Force = False
    quiet: Quiet = False


def print_tables() -> None:
    """Print the tables that can be reproduced."""
    from distvae.reproduce.table import read_table, table_names

    width = max(map(len, table_names())) + 2
    for name in table_names():
        print(f"{name:{width}}{read_table(name).about}")


def reproduce_table(name: str, options: ReproduceOptions, trial_options: TrialOptions) -> int:
    """Train the rows of a table, and print the results beside the published figures; return the
    exit code.
    """
    from distvae.reproduce.compare import compare_rows, write_comparison
    from distvae.reproduce.run import ROWS, Reproduction, Work, describe_plan
    from distvae.tune.sweep import SweepOptions

    resources = trial_options.resources()
    out = options.out or RUNS / "reproduce" / name
    table = select_rows(name, options, out)
    if options.plan:
        print("\n".join(describe_plan(table)))
        return 0
    check_writable_folder(out)
    check_writable_folder(options.rows or out)
    work = Work.of(table, options.data)
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
    lines = compare_rows(table, reproduction.rows)
    comparison = write_comparison(lines, out)
    if findings is not None:
        record_comparison(out, comparison, options.quiet)
    if not options.quiet:
        print_comparison(lines, table.source, last_words(findings, table))
    return 0 if findings is None else findings.exit_code


def select_rows(name: str, options: ReproduceOptions, out: Path) -> "Table":
    """Return a table with the rows of `--only`, and those that a resumed folder contains."""
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
    if not table.trained and not table.peers:
        raise Refusal(
            f"--only: {', '.join(patterns)}: nothing to obtain at scale {options.scale}; other rows"
            " or scale expected"
        )
    return table


def record_comparison(out: Path, comparison: Path, quiet: bool) -> None:
    """Add the comparison to the sweep's record in MLflow, and write the report of the sweep."""
    from distvae.report import write_and_log
    from distvae.track import Store, Tracker

    if record := Tracker.of_folder(out, Store.find(RUNS)):
        record.files([comparison], "results")
        record.wait()
    write_and_log(out, RUNS, quiet)


def last_words(findings: "Findings | None", table: "Table") -> str:
    """Return what a command that was stopped says; baselines are evaluated last, so they too may
    be missing.
    """
    from distvae.tune.results import LAST_WORDS

    if findings is None or not findings.interrupted:
        return ""
    return LAST_WORDS["trials" if table.peers else findings.left]


def print_comparison(lines: "list[Line]", source: str, last: str) -> None:
    """Print the comparison as a table, where the published figures come from, and last words."""
    from rich.console import Console

    from distvae.reproduce.compare import comparison_table, notes_on

    if lines:
        Console(width=WIDTH, markup=False, emoji=False).print(comparison_table(lines))
    for note in notes_on(lines):
        print(note)
    print(f"published: {source}")
    if last:
        print(last)
