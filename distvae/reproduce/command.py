"""What `distvae reproduce` does: say what it takes, obtain it, and hold it against what was
published.
"""

import sys
from dataclasses import replace
from pathlib import Path

from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal
from distvae.report.results.rows import Scale
from distvae.reproduce.compare import compare, grid, write
from distvae.reproduce.run import KEPT, Work, begun, planned, reproduce
from distvae.reproduce.table import read_table, table_names
from distvae.tune.resources import TrialResources
from distvae.tune.table import STOPPED


def tables() -> None:
    """Print the tables that there are."""
    for name in table_names():
        print(f"{name:14}{read_table(name).about}")


def remake(
    name: str,
    scale: Scale,
    only: list[str],
    seeds: int | None,
    data: str,
    out: Path,
    rows: Path | None,
    concurrent: int | None,
    plan: bool,
    resume: bool,
    force: bool,
    quiet: bool,
    resources: TrialResources,
    root: Path,
) -> int:
    """Obtain a table, print it beside what was published, and keep both; the exit code."""
    from rich.console import Console

    every = read_table(name, scale)
    every = replace(every, seeds=seeds or every.seeds)
    table = every.only(only)
    if resume and table.trained:
        table = every.only([*only, *begun(out)])
    if not table.trained and not table.peers:
        raise Refusal(
            f"--only: {', '.join(only)}: nothing to obtain at scale {scale}; other rows or scale"
            " expected"
        )
    if plan:
        print("\n".join(planned(table)))
        return 0
    check_writable_folder(out)
    check_writable_folder(rows or out)
    work = Work.of(table, data)
    if not quiet:
        print(*planned(work.table), *work.missing, sep="\n", file=sys.stderr)
    findings = reproduce(work, out, rows, concurrent, quiet, force, resume, resources)
    lines = compare(table, rows or out / KEPT)
    comparison = write(lines, out)
    if findings is not None:
        _record(out, comparison, root, quiet)
    if not quiet:
        if lines:
            Console(width=200).print(grid(lines))
        print(f"published: {table.source}")
        if findings is not None and findings.cut_short:
            print(STOPPED)
    return 0 if findings is None else findings.exit_code


def _record(out: Path, comparison: Path, root: Path, quiet: bool) -> None:
    from distvae.report.logged import write_and_log
    from distvae.track import Store, Tracker

    if record := Tracker.of_folder(out, Store.find(root)):
        record.files([comparison], "results")
    write_and_log(out, root, quiet)
