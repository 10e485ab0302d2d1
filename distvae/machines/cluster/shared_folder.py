"""A round trip through a folder, which shows whether machines share their storage."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder

STORAGE_REMEDY = "--storage with a path on a shared disk, or a URI such as s3://bucket/runs"
"""What a run needs if its machines do not share the folder."""
T = TypeVar("T")
FileStep = Callable[[Mapping[str, str]], Mapping[str, T | Refusal]]
"""One step of a round trip: from each machine's file name to its result, or a Refusal."""


def write_marker(folder: str, name: str) -> None:
    """Write an empty file."""
    Folder(folder).write(name, b"")


def list_files(folder: str) -> list[str]:
    """Return the names of the files in a folder."""
    return Folder(folder).list_files()


def delete_marker(folder: str, name: str) -> None:
    """Delete a file."""
    Folder(folder).delete(name)


@dataclass(frozen=True)
class RoundTrip:
    """The result of a round trip: every machine wrote a file and looked for those of the others."""

    failed: dict[str, str]
    """Machines that could not write, list or delete files there, and why."""
    unseen: list[tuple[str, str]]
    """Pairs of a reader and a writer, where the reader does not see the writer's file."""


def round_trip(
    nodes: Iterable[str],
    write: FileStep[object],
    list_names: FileStep[list[str]],
    delete: FileStep[object],
) -> RoundTrip:
    """Have every machine write a file, list the folder, and delete its file."""
    token = secrets.token_hex(4)
    files = {node: f"look-{token}-{number}" for number, node in enumerate(nodes)}
    failed: dict[str, str] = {}
    try:
        failed |= _refusals(write(files))
        written = _without(files, failed)
        listings = list_names(written)
        failed |= _refusals(listings)
    finally:
        failed |= _refusals(delete(_without(files, failed)))
    unseen = []
    for reader, names in listings.items():
        if isinstance(names, Refusal):
            continue
        unseen += [(reader, writer) for writer, file in written.items() if file not in names]
    return RoundTrip(failed, unseen)


def _without(files: Mapping[str, str], failed: Mapping[str, str]) -> dict[str, str]:
    """Return the files of machines that have not failed."""
    return {node: file for node, file in files.items() if node not in failed}


def _refusals(answers: Mapping[str, object]) -> dict[str, str]:
    """Return the reasons of the machines that refused."""
    return {node: str(answer) for node, answer in answers.items() if isinstance(answer, Refusal)}
