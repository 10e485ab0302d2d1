"""Commands for machines: `doctor` examines machines, `cluster init` writes the folder from which a
cluster is started.
"""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import AsJson, Force, command
from distvae.files.checkout import checkout_files
from distvae.files.output import atomic_file, make_folder
from distvae.files.refusal import Refusal

app = typer.Typer(rich_help_panel="Machines")
cluster = typer.Typer(
    no_args_is_help=True, help="Prepare a cluster of your own machines or a cloud."
)
app.add_typer(cluster, name="cluster", rich_help_panel=app.rich_help_panel)


@command(app)
def doctor(
    *,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray; examines all its machines instead of this one."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="With --address: a path or a URI that all machines should share."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="CLUSTER.yaml",
            help="Before 'ray up': check that the files which this file names exist.",
        ),
    ] = None,
    idle: Annotated[
        bool,
        typer.Option(
            "--idle",
            help="Check only whether a sweep or training runs here; exit with code 2 if one does.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Print what is wrong with this machine, or with those of a cluster, and what to do about it.
    Exits with code 1 if anything is wrong.
    """
    from distvae.machines import doctor
    from distvae.machines.cluster import refuse_if_running

    if idle:
        refuse_if_running()
        return
    if file is not None and address is not None:
        raise Refusal("--file: before its Ray runs, --address: when it runs; one of them expected")
    if storage is not None and address is None:
        raise Refusal("--storage: --address of the Ray whose machines should share it expected")
    if file is not None:
        findings = doctor.examine_cluster_file(file)
    elif address is not None:
        findings = doctor.examine_cluster(address, storage)
    else:
        findings = doctor.examine_this_machine()
    code = 0
    for finding in findings:
        print(json_format.dumps(asdict(finding)) if json else finding, flush=True)
        if finding.state == "bad":
            code = 1
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
    files = checkout_files()
    if not force:
        _refuse_other_contents(folder, files)
    make_folder(folder)
    for place, source in files.items():
        make_folder((folder / place).parent)
        content = source.read_bytes()
        with atomic_file(folder / place) as temporary:
            temporary.write_bytes(content)
    print(f"{folder}: set machines and shared folder at the top of cluster/cluster.yaml, then run")
    print("in that folder:")
    print("  distvae doctor --file cluster/cluster.yaml && ray up cluster/cluster.yaml")


def _refuse_other_contents(folder: Path, files: dict[str, Path]) -> None:
    """Refuse a folder that holds another file, or one of these files with another content."""
    for file in folder.rglob("*"):
        source = files.get(file.relative_to(folder).as_posix())
        if file.is_file() and (source is None or source.read_bytes() != file.read_bytes()):
            raise Refusal(
                f"{folder}: exists and has a {file.relative_to(folder)} of its own; another name or"
                " --force expected"
            )
