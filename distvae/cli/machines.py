"""The command that examines machines."""

import typer

from distvae.cli.command import command
from distvae.commands.doctor import DoctorOptions, diagnose

app = typer.Typer()


@command(app)
def doctor(*, options: DoctorOptions) -> None:
    """Print what is wrong with this machine, or with those of a cluster, and what to do about it.
    Exits with code 1 if anything is wrong.
    """
    if code := diagnose(options):
        raise typer.Exit(code)
