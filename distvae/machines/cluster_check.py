"""Checks that machines run the same programs and see the same storage."""

import importlib.metadata
import platform
from collections.abc import Callable, Iterable
from typing import Any

from distvae.files.provenance import program_version
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.nodes import ask, each
from distvae.machines.shared_folder import STORAGE, Asked, Trip, leave, round_trip, seen, take_away

PACKAGES = ("torch", "numpy", "pyarrow", "safetensors")


def versions() -> dict[str, str]:
    """Of Python and of what computes and stores."""
    own = {"python": platform.python_version(), "distvae": program_version()}
    return own | {name: importlib.metadata.version(name) for name in PACKAGES}


def check_cluster(ray: Any, folder: Folder, remedy: str = STORAGE) -> None:
    """Refuse machines that differ in their programs, or do not see what each other writes into a
    folder.
    """
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(names) > 1:
        _refuse_other_versions(names, ask(ray, names, versions), versions())
        _refuse_apart(names, shared(ray, names, folder), folder, remedy)


def _refuse_other_versions(
    names: dict[str, str], found: dict[str, dict[str, str]], own: dict[str, str]
) -> None:
    for node, there in found.items():
        for package, version in own.items():
            if there[package] != version:
                raise Refusal(
                    f"{names[node]}: {package} {there[package]}, but {version} here; the same on"
                    " every machine expected"
                )


def _refuse_apart(names: dict[str, str], trip: Trip, folder: Folder, remedy: str) -> None:
    for node, why in trip.failed.items():
        raise Refusal(f"{names[node]}: {why}")
    for reader, writer in trip.blind:
        raise Refusal(
            f"{folder}: what {names[writer]} writes there is not seen by {names[reader]}; a place"
            f" that all machines share expected: {remedy}"
        )


def shared(ray: Any, nodes: Iterable[str], folder: Folder) -> Trip:
    """A round trip of the machines of a Ray through a folder."""

    def of_each(what: Callable[..., Any]) -> Asked:
        return lambda files: {
            node: each(ray, [node], what, folder.place, file)[node] for node, file in files.items()
        }

    return round_trip(
        nodes,
        of_each(leave),
        lambda files: each(ray, files, seen, folder.place),
        of_each(take_away),
    )
