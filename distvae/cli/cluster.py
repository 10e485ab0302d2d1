"""Commands for machines: `doctor` examines machines, `cluster init` writes the folder from which a
cluster is started.
"""

import json
import os
import secrets
import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.options import AsJson, Force, command
from distvae.files.paths import atomic_file, make_folder
from distvae.files.program import checkout_files
from distvae.files.refusal import Refusal

app = typer.Typer(rich_help_panel="Machines")
cluster = typer.Typer(
    no_args_is_help=True, help="Prepare a cluster of your own machines or a cloud."
)
app.add_typer(cluster, name="cluster", rich_help_panel=app.rich_help_panel)


HOME_FILE = "~/.ray/distvae/auth_token"
"""The file with the token of clusters, which the cluster files name."""


@dataclass(frozen=True)
class DoctorOptions:
    """The options of `distvae doctor`."""

    address: str | None = None
    """Address of a running Ray; examines all its machines instead of this one."""
    storage: Annotated[str | None, typer.Option(metavar="URI")] = None
    """With --address: a path or a URI that all machines should share."""
    file: Annotated[Path | None, typer.Option(metavar="CLUSTER.yaml")] = None
    """Before 'ray up': check that the files which this file names exist."""
    idle: bool = False
    """Check only whether a sweep or training runs here; exit with code 2 if one does."""
    json: AsJson = False


@command(app, "doctor --file cluster/cluster.yaml")
def doctor(*, options: DoctorOptions) -> None:
    """Print what is wrong with this machine, or with those of a cluster, and what to do about it.
    Exits with code 1 if anything is wrong.
    """
    from distvae.machines import doctor
    from distvae.machines.cluster import refuse_if_running

    if options.idle:
        refuse_if_running()
        return
    if options.file is not None and options.address is not None:
        raise Refusal("--file: before its Ray runs, --address: when it runs; one of them expected")
    if options.storage is not None and options.address is None:
        raise Refusal("--storage: --address of the Ray whose machines should share it expected")
    if options.file is not None:
        findings = doctor.examine_cluster_file(options.file)
    elif options.address is not None:
        findings = doctor.examine_cluster(options.address, options.storage)
    else:
        findings = doctor.examine_this_machine()
    code = 0
    for finding in findings:
        print(json.dumps(asdict(finding)) if options.json else finding, flush=True)
        if finding.state == "bad":
            code = 1
    raise typer.Exit(code)


@cluster.callback()
def cluster_commands() -> None:
    """Prepare a cluster of your own machines or a cloud."""


@command(cluster, "cluster init my-cluster")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    force: Force = False,
) -> None:
    """Write the folder that a cluster is started from: files for ssh, AWS, Google Cloud and
    Kubernetes, search spaces to edit, and this package. 'ray up' is run there. The token of the
    cluster is made in ~/.ray/distvae unless it exists.
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
    if make_token():
        print(f"{HOME_FILE}: a new token, without which nobody may use the cluster")
    print(f"{folder}: set machines and shared folder at the top of cluster/cluster.yaml")
    print(f"next: cd {shlex.quote(str(folder))} && distvae doctor --file cluster/cluster.yaml")
    print("then: ray up cluster/cluster.yaml")


def make_token() -> bool:
    """Make the token of clusters in the home folder, readable by its owner alone, unless it
    exists. Return whether it was made.
    """
    place = Path(HOME_FILE).expanduser()
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        return True
    return False


def _refuse_other_contents(folder: Path, files: dict[str, Path]) -> None:
    """Refuse a folder that holds another file, or one of these files with another content."""
    for file in folder.rglob("*"):
        source = files.get(file.relative_to(folder).as_posix())
        if file.is_file() and (source is None or source.read_bytes() != file.read_bytes()):
            raise Refusal(
                f"{folder}: exists and has a {file.relative_to(folder)} of its own; another name or"
                " --force expected"
            )
