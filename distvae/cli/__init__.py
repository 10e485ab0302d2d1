"""The command line. Nothing heavy is imported before a command runs, so that --help is fast."""

import io
import sys
from typing import Annotated

from distvae.files.program import errors_reported, program_version

with errors_reported():  # of Ctrl-C during these imports, which take a third of a second
    import typer

    from distvae.cli import cluster, compare, data, records, reference, restoration, train, use
    from distvae.cli.options import join_words

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (train, use, restoration, compare, reference, data, records, cluster):
    app.add_typer(part.app)


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
    with errors_reported():  # of arguments; commands report their own
        app()
