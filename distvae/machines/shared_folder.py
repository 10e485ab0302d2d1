"""A round trip through a folder shows whether machines see the same storage."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder

STORAGE = "--storage with a path on a shared disk, or a URI such as s3://bucket/runs"
"""What a run needs that machines do not see the folder of."""


def leave(place: str, name: str) -> None:
    """Write a file that others look for."""
    Folder(place).write(name, b"")


def seen(place: str) -> list[str]:
    """The files of a folder."""
    return Folder(place).list_files()


def take_away(place: str, name: str) -> None:
    """Delete such a file."""
    Folder(place).delete(name)


Asked = Callable[[Mapping[str, str]], dict[str, Any]]
"""A file of each machine's own to what each answers, or a refusal that says why it cannot."""


@dataclass(frozen=True)
class Trip:
    """What became of a round trip through a folder: every machine writes a file, and each looks for
    those of all.
    """

    failed: dict[str, str]
    """Machines that cannot write, look or delete there, and why."""
    blind: list[tuple[str, str]]
    """Who does not see what whom wrote."""


def round_trip(nodes: Iterable[str], write: Asked, look: Asked, delete: Asked) -> Trip:
    """Have every machine write a file of its own, look for those of all, and delete its own."""
    token = secrets.token_hex(4)
    files = {node: f"look-{token}-{number}" for number, node in enumerate(nodes)}
    failed: dict[str, str] = {}
    try:
        failed |= _refused(write(files))
        left = {node: file for node, file in files.items() if node not in failed}
        found = look(left)
        failed |= _refused(found)
    finally:
        failed |= _refused(
            delete({node: file for node, file in files.items() if node not in failed})
        )
    seeing = {node: names for node, names in found.items() if not isinstance(names, Refusal)}
    return Trip(
        failed,
        [(me, other) for me, names in seeing.items() for other in left if left[other] not in names],
    )


def _refused(answers: Mapping[str, Any]) -> dict[str, str]:
    return {node: str(answer) for node, answer in answers.items() if isinstance(answer, Refusal)}
