"""A sink beside MLflow, which copies a journal into files of the run's own folder as it grows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from distvae.files.storage import Folder
from distvae.track.journal import Entry, Journal
from distvae.track.naming import metric_name

STATE = "sent.json"
"""The file of a sink that says how much of the journal it has."""


class State(TypedDict):
    """How far a sink has read a journal."""

    read: int
    """Bytes."""
    epoch: int
    """The last epoch."""


class FileSink(ABC):
    """A sink that writes files into a folder of the run."""

    name: str
    """The name of the sink, and of its folder."""
    package: str
    """The package that it needs."""

    def __init__(self, run: Path) -> None:
        self.journal, self.folder = Journal(run), run / self.name

    def send(self) -> None:
        """Write the figures that it does not have yet. An epoch is written once."""
        state = self._state()
        pending = list(self.journal.entries(state["read"]))
        for entry, end in pending:
            known = 0 < entry.get("step", 0) <= state["epoch"]
            if entry["is"] == "metrics" and not known:
                self.write(named_figures(entry), entry["step"], entry["when"] / 1000)
                state["epoch"] = max(state["epoch"], entry["step"])
            state["read"] = end
        if pending:
            self.flush()
            Folder(self.folder).write(STATE, json.dumps(state).encode())

    def _state(self) -> State:
        file = self.folder / STATE
        if not file.exists():
            return {"read": 0, "epoch": 0}
        state: State = json.loads(file.read_bytes())
        return state

    @abstractmethod
    def write(self, figures: Mapping[str, float], epoch: int, when: float) -> None:
        """Write the figures of an epoch, or with epoch 0 those that belong to none."""

    @abstractmethod
    def flush(self) -> None:
        """Leave nothing that was written in memory."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""


def named_figures(entry: Entry) -> dict[str, float]:
    """Return the figures of an entry by the names that they have in MLflow."""
    groups = entry.get("groups", {})
    return {metric_name(name, groups): value for name, value in entry["values"].items()}
