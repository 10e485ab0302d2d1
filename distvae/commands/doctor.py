"""`distvae doctor`: examine whether machines are fit to train."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import RUNS, AsJson
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distvae.machines.doctor.diagnosis import Diagnosis


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
            metavar="URI", help="A folder that all machines should share: a path or a URI."
        ),
    ] = None
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="CLUSTER.yaml",
            help="Before 'ray up': examine this file, and its machines over ssh.",
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
    """Print what is wrong with machines and what to do about it; return the exit code."""
    from distvae.machines.doctor import diagnosis
    from distvae.machines.running_lock import refuse_if_running

    if options.idle:
        refuse_if_running()
        return 0
    if options.file is not None and options.address is not None:
        raise Refusal(
            "--file: examines a cluster before its Ray runs, --address one that runs; one of the"
            " two expected"
        )
    found = _examine(options)
    if options.json:
        diagnosis.print_json(found)
    else:
        diagnosis.print_table(found)
    return 1 if any(each.state == "bad" for each in found) else 0


def _examine(options: DoctorOptions) -> "Sequence[Diagnosis]":
    """Examine the machines of a cluster's file, those of a running Ray, or this one."""
    from distvae.machines.doctor.cluster_file import examine_cluster_file
    from distvae.machines.doctor.examination import examine_cluster, examine_this_machine

    if options.file is not None:
        return examine_cluster_file(options.file, options.storage)
    if options.address:
        return examine_cluster(options.address, RUNS, options.storage)
    return examine_this_machine(RUNS, options.storage)
