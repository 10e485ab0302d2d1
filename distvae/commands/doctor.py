"""`distvae doctor`: examine whether machines are fit to train."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import AsJson
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.machines.doctor import Finding


@dataclass(frozen=True)
class DoctorOptions:
    """The options of `distvae doctor`."""

    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray; examines all its machines instead of this one."
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="With --address: a path or a URI that all machines should share."
        ),
    ] = None
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="CLUSTER.yaml",
            help="Before 'ray up': check that the files which this file names exist.",
        ),
    ] = None
    idle: Annotated[
        bool,
        typer.Option(
            "--idle",
            help="Check only whether a sweep or training runs here; exit with code 2 if one does.",
        ),
    ] = False
    json: AsJson = False


def diagnose(options: DoctorOptions) -> int:
    """Print a line for each finding; return 1 if something is wrong, else 0."""
    from distvae.machines.running_lock import refuse_if_running

    if options.idle:
        refuse_if_running()
        return 0
    code = 0
    for finding in _examine(options):
        print(json.dumps(asdict(finding)) if options.json else finding, flush=True)
        if finding.state == "bad":
            code = 1
    return code


def _examine(options: DoctorOptions) -> "Iterator[Finding]":
    """Examine a cluster file, the machines of a running Ray, or this machine."""
    from distvae.machines import doctor

    if options.file is not None and options.address is not None:
        raise Refusal("--file: before its Ray runs, --address: when it runs; one of them expected")
    if options.storage is not None and options.address is None:
        raise Refusal("--storage: --address of the Ray whose machines should share it expected")
    if options.file is not None:
        return doctor.examine_cluster_file(options.file)
    if options.address is not None:
        return doctor.examine_cluster(options.address, options.storage)
    return doctor.examine_this_machine()
