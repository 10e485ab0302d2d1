"""Sinks beside MLflow, which copy a journal into files of the run's own folder as it grows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.track.journal import Entry, Journal
from distvae.track.naming import metric_name
from distvae.track.retries import Retries

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


class FileSinks:
    """The sinks of one run beside MLflow. What goes wrong in one is told once and stops nothing."""

    def __init__(self, names: Sequence[str], run: Path) -> None:
        self.run, self._open = run, dict[str, FileSink]()
        self._retries = {
            name: Retries(
                f"{run.name}: writing for {name} fails",
                "Training continues, and so does the record in MLflow.",
                f"{run.name}: {name} has everything now.",
            )
            for name in names
        }

    def send(self) -> None:
        """Let each sink write what it does not have yet."""
        for name, retries in self._retries.items():
            retries.attempt(partial(self._send_to, name))

    def close(self) -> None:
        """Close the files of all sinks."""
        for name, sink in self._open.items():
            self._retries[name].attempt(sink.close)
        self._open = {}

    def _send_to(self, name: str) -> None:
        if name not in self._open:
            self._open[name] = sink_classes()[name](self.run)
        self._open[name].send()


def sink_classes() -> dict[str, type[FileSink]]:
    """Return the sinks by name. Their packages are imported when something is written."""
    from distvae.track.tensorboard import TensorBoard
    from distvae.track.weights_and_biases import WeightsAndBiases

    return {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def refuse_missing_packages(names: Sequence[str]) -> None:
    """Refuse a sink whose package is not installed."""
    for name in names:
        package = sink_classes()[name].package
        if find_spec(package) is None:
            raise Refusal(
                f"train.sinks: '{name}' needs the package {package}, which is not installed;"
                f" pip install 'distvae[{name}]', or train.sinks without it, expected"
            )
