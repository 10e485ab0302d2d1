"""The record of a running run or sweep."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config, flatten
from distvae.files.refusal import cause
from distvae.files.storage import Folder
from distvae.numerics.metrics import groups_of
from distvae.track.naming import metric_name
from distvae.track.record import (
    RECORD,
    Findings,
    Record,
    Status,
    read_record,
    read_sent,
    write_document,
)
from distvae.track.sending import Sending
from distvae.track.store import Store, without_secrets
from distvae.track.tensorboard import TensorBoard

if TYPE_CHECKING:
    from distvae.train.epoch import Epoch


@dataclass
class Tracker:
    """The record of a run or sweep. A failure is reported once, and training continues."""

    folder: Path
    """The folder of the run or sweep, which keeps the record."""
    sending: Sending | None
    """None if another process sends the record."""
    experiment: str
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    parent: Path | None = None
    """The folder of the sweep of this trial."""
    sinks: Sequence[str] = ()
    state: Folder | None = None
    """The folder that training writes epochs into, if it is not `folder`."""
    _began: int = field(default_factory=lambda: _now())
    _record: Record | None = None
    _board: TensorBoard | None = None
    _failed: set[str] = field(default_factory=set)

    @classmethod
    def open(
        cls,
        config: Config,
        recipe: str,
        folder: Path,
        experiment: str,
        parent: Path | None = None,
        root: Path = Path("runs"),
    ) -> "Tracker":
        """Return the tracker of a run. It writes nothing before the end of the first epoch."""
        tags = run_tags(recipe, folder, parent)
        sending = Sending(Store.find(root), folder)
        params = flatten(config)
        sinks = config.train.sinks
        return cls(folder, sending, experiment, folder.name, params, tags, parent, sinks)

    @classmethod
    def of_folder(cls, folder: Path, store: Store) -> "Tracker | None":
        """Return the tracker of an existing record, or None if it belongs to another store."""
        record = read_record(folder)
        uri = without_secrets(store.uri)
        if not record or read_sent(folder).get("store", uri) != uri:
            return None
        about = record["experiment"], record["name"], record["params"], record["tags"]
        return cls(folder, Sending(store, folder), *about, _record=record)

    @property
    def complete(self) -> bool:
        """True if MLflow has everything."""
        return not self._failed and (self.sending is None or self.sending.complete)

    @property
    def viewer(self) -> str:
        """The address or the command for a person to view the record."""
        return self.sending.store.viewer if self.sending else ""

    def begin(self) -> None:
        """Write the description of the record."""
        self._change(lambda record: None)

    def epoch(self, epoch: "Epoch") -> None:
        """Record an epoch that training has written to its folder."""
        if self.state and self.state.place != Folder(self.folder).place:
            self._attempt("copying the epochs", self._copy_epochs)
        self._change(lambda record: _add_groups(record, epoch.metrics()))

    def figures(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record metrics that belong to no epoch. MLflow draws the metrics of a single step as
        bars.
        """
        found = {name: float(value) for name, value in values.items() if math.isfinite(value)}

        def add(record: Record) -> None:
            _add_groups(record, found)
            record["figures"].append({"step": step, "when": _now(), "values": found})

        self._change(add)

    def findings(self, text: str, varied: Sequence[str], ranked: Mapping[str, str]) -> None:
        """Record the conclusions of a sweep as text, and the settings and metrics of its charts.

        `ranked` has the directions of the metrics that rank trials.
        """
        groups = groups_of(ranked)
        metrics = {metric_name(name, groups): direction for name, direction in ranked.items()}
        found: Findings = {"text": text, "varied": list(varied), "ranked": metrics}
        self._change(lambda record: record.update({"findings": found}))

    def best(self, run: Path, name: str) -> None:
        """Record the best run of this sweep, and the name to register its model under, or ''."""
        folder = str(run.absolute().relative_to(self.folder.absolute()))
        self._change(lambda record: record.update({"best": {"folder": folder, "name": name}}))

    def files(self, paths: Iterable[Path], below: str) -> None:
        """Record files of this folder under a folder of the record."""
        names = {path.name: below for path in paths}
        self._change(lambda record: record["files"].update(names), goes_on=False)

    def pause(self) -> None:
        """Close the files of the sinks. The run may continue later in another process."""
        if self._board:
            self._attempt("writing for tensorboard", self._board.close)
        self._board = None

    def close(self, status: Status = "FINISHED") -> None:
        """Record the end. For a run that fails before its first epoch this is the whole record."""
        self._change(
            lambda record: record.update({"status": status, "ended": _now()}), goes_on=False
        )
        self.pause()
        self.wait()

    def wait(self) -> None:
        """Wait until MLflow has everything, as long as MLflow answers."""
        if self.sending:
            self.sending.finish()

    def _change(self, change: Callable[[Record], object], goes_on: bool = True) -> None:
        """Change the record, and request to send it. Do nothing without a folder."""

        def write() -> None:
            record = self._record or read_record(self.folder) or self._new()
            before = json.dumps(record) if self._record else ""
            if goes_on:
                record.pop("status", None)
            change(record)
            if json.dumps(record) != before:
                write_document(self.folder, RECORD, record)
            self._record = record

        if self.folder.is_dir() and self._attempt("writing the record", write):
            if "tensorboard" in self.sinks:
                self._attempt("writing for tensorboard", self._update_board)
            if self.sending:
                self.sending.notify(self.folder)

    def _new(self) -> Record:
        return {
            "experiment": self.experiment,
            "name": self.name,
            "parent": str(self.parent.absolute()) if self.parent else None,
            "began": self._began,
            "tags": dict(self.tags),
            "params": {name: str(value) for name, value in self.params.items()},
            "groups": {},
            "figures": [],
            "files": {},
        }

    def _update_board(self) -> None:
        assert self._record is not None
        self._board = self._board or TensorBoard(self.folder)
        self._board.update(self._record)

    def _copy_epochs(self) -> None:
        from distvae.train.run import EPOCHS

        assert self.state is not None
        Folder(self.folder).write(EPOCHS, self.state.read(EPOCHS))

    def _attempt(self, what: str, action: Callable[[], object]) -> bool:
        """Return whether an action succeeded. Report the first failure."""
        try:
            action()
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                said = f"{self.name}: {what} in {self.folder} fails: {cause(error)}"
                print(f"{said}. Nothing else is affected.", file=sys.stderr)
            return False
        return True


def run_tags(recipe: str, folder: Path, parent: Path | None = None) -> dict[str, str]:
    """Return the tags that identify a run. A run with a parent is a trial."""
    return {
        "kind": "trial" if parent else "run",
        "recipe": recipe,
        "folder": str(folder.absolute()),
    }


def _add_groups(record: Record, figures: Mapping[str, float]) -> None:
    record["groups"] = {**record["groups"], **groups_of(figures)}


def _now() -> int:
    """Return the time in milliseconds, MLflow's unit."""
    return int(time.time() * 1000)
