"""The commands for machines: examine them, and make the folder that a cluster is started from."""

from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.cluster import init_cluster
from distvae.commands.doctor import DoctorOptions, diagnose
from distvae.commands.options import Force

app = typer.Typer(rich_help_panel="Machines")
cluster = typer.Typer(
    no_args_is_help=True, help="Prepare a cluster of your own machines or a cloud."
)
app.add_typer(cluster, name="cluster", rich_help_panel=app.rich_help_panel)


@command(app)
def doctor(*, options: DoctorOptions) -> None:
    """Print what is wrong with this machine, or with those of a cluster, and what to do about it.
    Exits with code 1 if anything is wrong.
    """
    if code := diagnose(options):
        raise typer.Exit(code)


@cluster.callback()
def cluster_commands() -> None:
    """Prepare a cluster of your own machines or a cloud."""


@command(cluster)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    force: Force = False,
) -> None:
    """Write the folder that a cluster is started from: files for ssh, AWS, Google Cloud and
    Kubernetes, search spaces to edit, and this package. 'ray up' is run there.
    """
    init_cluster(folder, force)
