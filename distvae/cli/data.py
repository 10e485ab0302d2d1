"""Commands for data: `data check` examines data, `ingest` makes large tables ready to train on."""

import json as json_format
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.cli.options import AsJson, Assignments, Force, Quiet, command
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.data.family import Survey
    from distvae.files.untrusted import Plain

app = typer.Typer(rich_help_panel="Data")
data = typer.Typer(no_args_is_help=True, help="Examine data before training on it.")
app.add_typer(data, name="data", rich_help_panel=app.rich_help_panel)


@data.callback()
def data_commands() -> None:
    """Examine data before training on it."""


@command(data, "data check ~/recordings")
def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help=(
                "A folder, file or URI; or 'built-in speech', 'built-in picture', 'built-in sound'."
            ),
        ),
    ],
    assignments: Assignments = None,
    json: AsJson = False,
) -> None:
    """Print what data was recognised, what is wrong with it, and the next command. Exits with code
    1 if it differs from its published form, and with 2 if it cannot be read.
    """
    from distvae.config.recipes import parse_assignments
    from distvae.data.family import examine

    for key in parse_assignments(assignments or []):
        if not key.startswith("data.") or key in ("data.kind", "data.path"):
            raise Refusal(f"{key}: settings of the data besides its kind and path expected here")
    found = examine(path, assignments or [])
    if json:
        print(json_format.dumps(asdict(found) | {"exit_code": found.exit_code}))
    else:
        print("\n".join(_lines(found)))
    raise typer.Exit(found.exit_code)


def _lines(found: "Survey") -> Iterator[str]:
    from distvae.data.family import next_command

    yield f"{found.path}: {found.layout}"
    if found.splits:
        columns = list(next(iter(found.splits.values())))
        yield f"{'split':10}" + "".join(f"{column:>12}" for column in columns)
        for split, amount in found.splits.items():
            cells = [f"{_format_number(amount[column]):>12}" for column in columns]
            yield f"{split or 'none':10}" + "".join(cells)
    for name, value in found.facts.items():
        yield f"{name + ':':16}{_format_fact(value)}"
    for label, lines in (("wrong", found.wrong), ("unreadable", found.unreadable)):
        yield from (f"{label + ':':16}{line}" for line in lines)
    if not found.unreadable:
        yield f"{'next:':16}{next_command(found)}"


def _format_number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _format_fact(value: "Plain") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({count:,})" for name, count in value.items())
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    return _format_number(value)


@dataclass(frozen=True)
class IngestOptions:
    """The options of `distvae ingest`."""

    val: float = 0.05
    """Share of the rows for validation; 0: validate on training rows."""
    test: float = 0.05
    """Share of the rows for testing; 0: test on validation rows."""
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1)] = 0
    """Seed of the order of the rows."""
    columns: str = ""
    """Names of the columns to take, separated by commas; default: all."""
    force: Force = False
    quiet: Quiet = False


@command(app, "ingest day1.csv day2.parquet rows")
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Tables: .csv, .npy, .parquet, .arrow, .feather."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    *,
    options: IngestOptions,
) -> None:
    """Shuffle the rows of tables of numbers, however large, into a folder to train on with
    data.kind=rows.
    """
    from distvae.data.ingest import Division
    from distvae.data.ingest import ingest as ingest_tables

    division = Division(options.val, options.test, options.seed)
    columns = [name.strip() for name in options.columns.split(",") if name.strip()]
    summary = ingest_tables(sources, out, division, options.force, options.quiet, columns)
    if not options.quiet:
        print(summary)
