"""The command line. Nothing heavy is imported before a command runs, so that --help is fast."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from distvae.cli import bench, bench_scale, data, machines, models, records, restoration, sweeps
from distvae.commands.completion import join_words
from distvae.files.paths import PATH_ERRORS
from distvae.files.provenance import program_version
from distvae.files.refusal import Refusal, refusing_full_disk

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (models, restoration, sweeps, records, machines):
    app.add_typer(part.app)
bench.app.add_typer(bench_scale.app)
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
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The names of files need not be UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    join_words()
    with errors_reported():
        app()


@contextmanager
def errors_reported() -> Iterator[None]:
    """Report errors of the user or of a disk in one line, and exit with a code that says which.

    Exit with 2 for input that cannot be used and 130 for Ctrl-C; other errors are raised.
    """
    try:
        with refusing_full_disk():
            yield
    except Refusal as error:
        _exit_with(str(error), 2)
    except OSError as error:
        if error.errno not in PATH_ERRORS:
            raise
        text = f"{error.filename}: {error.strerror}; another name or place expected"
        _exit_with(str(Refusal(text)), 2)
    except KeyboardInterrupt:
        _exit_with("interrupted", 130)


def _exit_with(text: str, code: int) -> None:
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(code)
