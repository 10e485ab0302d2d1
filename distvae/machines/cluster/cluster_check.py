"""Checks that the machines of a cluster run the same programs and share their storage."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from distvae.files.provenance import program_version
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster.nodes import node_addresses, run_on_nodes, run_on_nodes_or_refuse
from distvae.machines.cluster.shared_folder import (
    STORAGE_REMEDY,
    FileStep,
    RoundTrip,
    delete_marker,
    list_files,
    round_trip,
    write_marker,
)
from distvae.machines.ray_api import RayApi

PACKAGES = ("torch", "ray", "numpy", "pyarrow", "safetensors")
"""Packages whose versions have to agree: those that compute, communicate and store."""
T = TypeVar("T")


def check_cluster(ray: RayApi, folder: Folder, remedy: str = STORAGE_REMEDY) -> None:
    """Refuse machines with different programs, or ones that do not share a folder."""
    addresses = node_addresses(ray)
    if len(addresses) == 1:
        return
    _refuse_other_versions(addresses)
    trip = round_trip_on_nodes(addresses, folder)
    for node, reason in trip.failed.items():
        raise Refusal(f"{addresses[node]}: {reason}")
    for reader, writer in trip.unseen:
        raise Refusal(
            f"{folder}: what {addresses[writer]} writes there is not seen by {addresses[reader]}; a"
            f" place that all machines share expected: {remedy}"
        )


def program_versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages that have to agree."""
    versions = {"python": platform.python_version(), "distvae": program_version()}
    for name in PACKAGES:
        versions[name] = importlib.metadata.version(name)
    return versions


def other_versions(found: Mapping[str, str]) -> list[str]:
    """Return in words the programs of a machine whose versions differ from the versions here."""
    return [
        f"{name} {found[name]}, but {version} here"
        for name, version in program_versions().items()
        if found[name] != version
    ]


def _refuse_other_versions(addresses: Mapping[str, str]) -> None:
    """Refuse machines whose programs have other versions than this process."""
    for node, found in run_on_nodes_or_refuse(addresses, program_versions).items():
        if others := other_versions(found):
            raise Refusal(
                f"{addresses[node]}: {'; '.join(others)}; the same on every machine expected"
            )


def round_trip_on_nodes(nodes: Iterable[str], folder: Folder) -> RoundTrip:
    """Make a round trip through a folder on the machines of a Ray cluster."""

    def on_each(function: Callable[[str, str], T]) -> FileStep[T]:
        def step(files: Mapping[str, str]) -> dict[str, T | Refusal]:
            results: dict[str, T | Refusal] = {}
            for node, file in files.items():
                results |= run_on_nodes([node], function, folder.place, file)
            return results

        return step

    def list_on_each(files: Mapping[str, str]) -> dict[str, list[str] | Refusal]:
        return run_on_nodes(files, list_files, folder.place)

    return round_trip(nodes, on_each(write_marker), list_on_each, on_each(delete_marker))
