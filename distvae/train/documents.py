"""Types of the JSON documents in a run folder."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from distvae.estep.store import PopulationFile
from distvae.files.untrusted import Plain


class PositionFacts(TypedDict):
    """The position of a training, as a checkpoint stores it."""

    epoch: int
    batch: int
    best: float
    best_epoch: int
    seconds: float
    sigma: NotRequired[float]
    shift: NotRequired[int]


class CheckpointFacts(TypedDict, total=False):
    """The facts that a checkpoint stores besides tensors. `best` stores only the epoch."""

    epoch: int
    position: PositionFacts
    populations: Sequence[PopulationFile]
    arithmetic: Mapping[str, Plain]
    best: "Manifest | None"
    """The manifest of the best weights when the state was saved."""


class Manifest(TypedDict):
    """The JSON file of a checkpoint, which names its tensors by their checksum."""

    version: int
    tensors: str
    sha256: str
    facts: CheckpointFacts


class Lineage(TypedDict):
    """The origin of a trial in population-based training."""

    parent: int
    """The number of the trial whose state this trial continues."""
    epoch: int
    """The number of epochs of the parent's state."""
    replaces: int
    """The number of the trial that this trial replaces."""


class RunInfo(TypedDict, total=False):
    """The facts about a run in its `run.json`."""

    version: int
    recipe: str
    dims: int
    shape: Sequence[int]
    unit: str
    data: str
    data_digest: str
    rows: Mapping[str, int]
    val_rows: int
    """The number of validation rows that are assessed after each epoch."""
    noise: float
    """The white noise in the rows, if training ends once sigma falls below it; otherwise 0."""
    recordings: Sequence[Plain]
    config_sha256: str
    config_sha256_before: str
    begun: str
    lineage: Lineage
    commit: str | None
    versions: Mapping[str, str]
    machine: Mapping[str, Plain]
    arithmetic: Mapping[str, Plain]
    arithmetic_before: Sequence[Mapping[str, Plain]]
    storage: str
    seconds: float
    epochs: int
    range: Sequence[float]


class Event(TypedDict):
    """A line of `events.jsonl`: training started or resumed, or machines will be taken away."""

    epoch: int
    batch: int
    workers: int
    leaving: int
    """Machines that will be taken away; 0 for a start."""
    time: float
    rows: Sequence[float]
    """The number of rows whose populations each worker holds; 0 without populations."""
    bytes: Sequence[float]
    """The bytes of these populations."""
    machines: Sequence[str]
    """The machine of each worker."""
    copies: Sequence[str | None]
    """The machine that holds each worker's snapshots. With several machines, it is not the worker's
    machine.
    """
    moved: NotRequired[int]
    """Non-zero in some events of version 0.2.0, which are not starts."""
