"""The two documents of a record, in the folder of a run or sweep.

The training process writes `record.json`, the sending process writes `mlflow.json`. Neither process
waits.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

from distvae.files.storage import Folder
from distvae.files.untrusted import read_json

RECORD = "record.json"
"""The document with everything to record except the epochs."""
SENT = "mlflow.json"
"""The document with the state of MLflow's copy."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Figures(TypedDict):
    """Metrics that belong to no line of epochs.jsonl."""

    step: int
    when: int
    values: Mapping[str, float]


class Findings(TypedDict):
    """The conclusions of a sweep as text, and the settings and metrics of its charts."""

    text: str
    varied: Sequence[str]
    ranked: Mapping[str, str]


class Best(TypedDict):
    """The best run below a sweep."""

    folder: str
    name: str
    """The name to register its model under, or '' to register none."""


class Record(TypedDict, total=False):
    """The contents of a record. Times are in milliseconds since 1970, as in MLflow."""

    experiment: str
    name: str
    parent: str | None
    """The folder of the sweep of this trial."""
    began: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    groups: Mapping[str, str]
    """The groups of metrics, which become the prefixes of their names."""
    figures: list[Figures]
    files: dict[str, str]
    """Files of the folder, by plain name, each with its folder in the record."""
    findings: Findings
    best: Best
    status: Status
    """Absent while the run or sweep is running."""
    ended: int


class Sent(TypedDict, total=False):
    """The state of MLflow's copy. `store` has no password."""

    id: str
    store: str
    epochs: int
    """The last epoch."""
    model: str
    """The id of the logged model."""
    digests: dict[str, str]
    """Checksums of the sent items."""


def read_record(folder: Path) -> Record:
    """Return the record of a folder, or {}."""
    return cast(Record, _read(folder / RECORD))


def read_sent(folder: Path) -> Sent:
    """Return the state of MLflow's copy of a folder, or {}."""
    return cast(Sent, _read(folder / SENT))


def write_document(folder: Path, name: str, document: Record | Sent) -> None:
    """Write a document, replacing the earlier one, unless the folder was deleted."""
    if folder.is_dir():
        Folder(folder).write(name, json.dumps(document, indent=1).encode())


def _read(file: Path) -> dict[str, object]:
    return read_json(file) if file.exists() else {}
