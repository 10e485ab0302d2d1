"""The command line. Nothing heavy is imported before a command runs, so that every --help is
quick.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from distvae.cli import bench, data, machines, models, records, restoration, sweeps, tables
from distvae.files.paths import PATH_ERRORS
from distvae.files.provenance import program_version
from distvae.files.refusal import Refusal, refusing_full_disk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (models, restoration, sweeps, tables, records, machines):
    app.add_typer(part.app)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"distvae {program_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train and tune variational autoencoders with sparse, dictionary and binary latents."""


def main() -> None:
    """Run a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # for names of files that are not in UTF-8
    with said():
        app()


@contextmanager
def said() -> Iterator[None]:
    """What goes wrong is said in a sentence, and the exit code says whose turn it is."""
    try:
        with refusing_full_disk():
            yield
    except Refusal as error:
        _leave(str(error), 2)
    except OSError as error:
        if error.errno not in PATH_ERRORS:
            raise
        _leave(
            str(Refusal(f"{error.filename}: {error.strerror}; another name or place expected")), 2
        )
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def _leave(text: str, code: int) -> None:
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(code)
