"""The two documents of a record, in the folder of a run or sweep.

The process that trains writes what is to be recorded beside the epochs, and the process that sends
writes what MLflow has. So none waits for the other.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

from distvae.files.storage import Folder
from distvae.files.untrusted import read_json

RECORD = "record.json"
"""The document with what is to be recorded."""
SENT = "mlflow.json"
"""The document with what MLflow has."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Figures(TypedDict):
    """Figures that belong to no line of epochs.jsonl."""

    step: int
    when: int
    values: Mapping[str, float]


class Findings(TypedDict):
    """What a sweep found, in words, and what to draw: settings, and metrics with directions."""

    text: str
    varied: Sequence[str]
    ranked: Mapping[str, str]


class Best(TypedDict):
    """The best run below a sweep."""

    folder: str
    name: str
    """The name to register its model under; empty for none."""


class Record(TypedDict, total=False):
    """What is to be recorded. Times are in milliseconds since 1970, as in MLflow."""

    experiment: str
    name: str
    parent: str | None
    """The folder of the sweep that it belongs to."""
    began: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    groups: Mapping[str, str]
    """The groups of figures, with which the names of metrics begin."""
    figures: list[Figures]
    files: dict[str, str]
    """Files of the folder, by plain name, each with its folder in the record."""
    findings: Findings
    best: Best
    status: Status
    """Missing while it goes on."""
    ended: int


class Sent(TypedDict, total=False):
    """What MLflow has. `store` has no password."""

    id: str
    store: str
    epochs: int
    """The last epoch."""
    model: str
    """The id of the logged model."""
    digests: dict[str, str]
    """Checksums of what was sent, by item."""


def read_record(folder: Path) -> Record:
    """Return what is to be recorded of a folder, or {}."""
    return cast(Record, _read(folder / RECORD))


def read_sent(folder: Path) -> Sent:
    """Return what MLflow has of a folder, or {}."""
    return cast(Sent, _read(folder / SENT))


def write_document(folder: Path, name: str, document: Record | Sent) -> None:
    """Write a document, replacing the one before, unless the folder was deleted."""
    if folder.is_dir():
        Folder(folder).write(name, json.dumps(document, indent=1).encode())


def _read(file: Path) -> dict[str, object]:
    return read_json(file) if file.exists() else {}
