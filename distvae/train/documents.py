"""The JSON documents of a run folder, as types."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from distvae.estep.store import PopulationFile
from distvae.files.plain import Plain


class PositionFacts(TypedDict):
    """The position of a training, as a checkpoint stores it."""

    epoch: int
    batch: int
    best: float
    best_epoch: int
    seconds: float


class CheckpointFacts(TypedDict, total=False):
    """The facts that a checkpoint stores beside tensors. The best weights have an epoch only."""

    epoch: int
    position: PositionFacts
    populations: Sequence[PopulationFile]
    arithmetic: Mapping[str, Plain]
    best: "Manifest | None"
    """The manifest of the best weights at that time."""


class Manifest(TypedDict):
    """The JSON file of a checkpoint, which names its tensors by their checksum."""

    version: int
    tensors: str
    sha256: str
    facts: CheckpointFacts


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
    recordings: Sequence[Plain]
    config_sha256: str
    config_sha256_before: str
    begun: str
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
    """A line of `events.jsonl`: training started or went on, or machines will be taken away."""

    epoch: int
    workers: int
    leaving: int
    """Machines that will be taken away; 0 for a start."""
    time: float
    rows: Sequence[float]
    """The rows of each shard."""
    bytes: Sequence[float]
    """The bytes of each shard."""
