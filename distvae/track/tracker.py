"""The record of a run or sweep while it goes on."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distvae.config import Config, flatten
from distvae.numerics.figures import groups_of
from distvae.track.journal import HEAD, Entry, Head, Journal
from distvae.track.naming import metric_name
from distvae.track.process import FAILED, SENT, SendingProcess
from distvae.track.retries import Retries
from distvae.track.sender import Sender
from distvae.track.sinks import FileSinks
from distvae.track.store import Store, without_secrets

if TYPE_CHECKING:
    from distvae.train.epoch import Epoch

Status = Literal["FINISHED", "FAILED", "KILLED"]
LOGGED_SUFFIXES = (".png", ".wav", ".csv", ".json")


@dataclass
class Tracker:
    """The record of a run or sweep. It is created by its first entry, or continued on resuming."""

    store: Store | None
    """None if another process sends what this one writes into the journal."""
    experiment: str
    name: str
    folder: Path
    """The folder of the run or sweep, which keeps all entries until MLflow has them."""
    params: Mapping[str, object]
    tags: Mapping[str, str]
    parent: Path | None = None
    """The folder of the sweep that it belongs to."""
    process: SendingProcess | None = None
    """The process that sends the journal; None to send it from here."""
    sinks: Sequence[str] = ()
    """The sinks beside MLflow."""
    _caught_up: bool = False
    """Whether the epochs of earlier processes are in the journal."""
    _process_failed: bool = False
    _sender: Sender | None = None
    _began: int = field(default_factory=lambda: _now())

    def __post_init__(self) -> None:
        """Prepare the messages for failures."""
        self._disk = Retries(
            f"{self.name}: writing to {self.folder} fails",
            "Training continues, but MLflow will lack this.",
            f"{self.name}: writing works again.",
        )
        self._retries = Retries.sending(self.folder, self.store)
        self._file_sinks = FileSinks(self.sinks, self.folder)

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
        """Return the tracker of a run. It writes nothing before the first epoch has ended."""
        tags = run_tags(recipe, folder, parent)
        return cls(
            Store.find(root),
            experiment,
            folder.name,
            folder,
            flatten(config),
            tags,
            parent,
            sinks=config.train.sinks,
        )

    @classmethod
    def of_folder(cls, folder: Path, store: Store) -> "Tracker | None":
        """Return the tracker of an existing journal, or None if it belongs to another store."""
        head = Journal(folder).head()
        uri = without_secrets(store.uri)
        if not head or head.get("store", uri) != uri:
            return None
        return cls(
            store=store,
            experiment=head["experiment"],
            name=head["name"],
            folder=folder,
            params=head["params"],
            tags=head["tags"],
            parent=Path(head["parent"]) if head["parent"] else None,
        )

    @property
    def id(self) -> str | None:
        """The id of the record, once MLflow has it."""
        return self._sender.id if self._sender else None

    @property
    def complete(self) -> bool:
        """True if MLflow has everything."""
        return not (self._disk.failing or self._retries.failing or self._process_failed)

    @property
    def viewer(self) -> str:
        """The address, or the command, by which a person can look at the record."""
        return self.store.viewer if self.store else ""

    def begin(self) -> None:
        """Write down what the record is. What is sent first creates it, also if a trial's is."""
        self._disk.attempt(self._write_head)

    def create(self) -> None:
        """Create the record, or find the one to continue."""
        if self._disk.attempt(self._write_head):
            self._send()

    def epoch(self, record: "Epoch") -> None:
        """Log an epoch, once, and before the first those that a killed process did not log."""
        if not self._caught_up:
            self._caught_up = True
            self._disk.attempt(lambda: self._catch_up(record))
        self._log(_metrics_entry(record.metrics(), record.epoch))

    def _catch_up(self, record: "Epoch") -> None:
        """Log the epochs before this one that the run folder has and the journal lacks."""
        from distvae.train.run import read_epochs

        entries = [entry for entry, _ in Journal(self.folder).entries(0)]
        logged = {entry["step"] for entry in entries if entry["is"] == "metrics"}
        for found in read_epochs(self.folder):
            if found["epoch"] < record.epoch and found["epoch"] not in logged:
                earlier = record.read(found, record.epochs)
                self._log(_metrics_entry(earlier.metrics(), earlier.epoch))

    def best_epoch(self, figures: Mapping[str, float], last: int) -> None:
        """Log figures of the best epoch once more after the last one: MLflow shows what is last."""
        self._log(_metrics_entry(figures, last))

    def evaluation(self, summary: Mapping[str, float], folder: Path) -> None:
        """Log final figures, and the pictures, sounds and tables in a folder."""
        self.figures(summary)
        files = sorted(path for path in folder.rglob("*") if path.suffix in LOGGED_SUFFIXES)
        for subfolder in sorted({path.parent for path in files}):
            beside = [path for path in files if path.parent == subfolder]
            self.files(beside, (Path("evaluation") / subfolder.relative_to(folder)).as_posix())

    def figures(self, values: Mapping[str, float]) -> None:
        """Log figures that belong to no epoch."""
        self._log(_metrics_entry(values, 0))  # MLflow draws figures of one step as bars

    def findings(
        self, text: str, varied: Sequence[str], ranked: Mapping[str, str], best: Path | None
    ) -> None:
        """Log what a sweep found, in words, and what to draw: settings and figures.

        `ranked` has the directions of the figures that rank trials, and `best` is the folder of a
        run whose data is that of the sweep.
        """
        groups = groups_of(ranked)
        metrics = {metric_name(name, groups): direction for name, direction in ranked.items()}
        folder = self._relative(best) if best else ""
        self._log(
            {"is": "findings", "text": text, "varied": varied, "ranked": metrics, "folder": folder}
        )

    def model(self) -> None:
        """Log the trained model, with everything that opens the run again."""
        self._log({"is": "model"})

    def files(self, paths: Iterable[Path], below: str) -> None:
        """Log files of the folder into a folder of the record."""
        relative = [self._relative(path) for path in paths]
        self._log({"is": "files", "paths": relative, "below": below})

    def report(self, page: Path) -> None:
        """Log the report on the folder, which may come long after the end, replacing the last."""
        self._log({"is": "report", "path": page.name})

    def register(self, name: str, run: Path) -> None:
        """Register the model of a run below this sweep as the best under a name."""
        self._log({"is": "register", "name": name, "folder": self._relative(run)})

    def _relative(self, path: Path) -> str:
        return str(path.absolute().relative_to(self.folder.absolute()))

    def pause(self) -> None:
        """Close the files of the sinks; the run goes on later, maybe in another process."""
        self._file_sinks.close()

    def close(self, status: Status = "FINISHED") -> None:
        """Log the end. A run that fails before its first epoch is recorded by this alone."""
        self._log({"is": "end", "status": status, "when": _now()}, at_once=True)
        self._file_sinks.close()
        self._finish_process()

    def _log(self, entry: Entry, at_once: bool = False) -> None:
        """Write an entry to the journal, and send the journal. Do nothing without a folder."""
        if self.folder.is_dir() and self._disk.attempt(lambda: self._append(entry)):
            self._file_sinks.send()
            self._send(at_once)

    def _append(self, entry: Entry) -> None:
        self._write_head()
        Journal(self.folder).append(entry)

    def _write_head(self) -> None:
        if (self.folder / HEAD).exists():
            return
        head: Head = {
            "experiment": self.experiment,
            "name": self.name,
            "parent": str(self.parent.absolute()) if self.parent else None,
            "began": self._began,
            "tags": dict(self.tags),
            "params": {name: str(value) for name, value in self.params.items()},
        }
        Journal(self.folder).write_head(head)

    def _send(self, at_once: bool = False) -> None:
        if self.process and self.process.notify():
            return
        if self.store is None or (self._retries.resting and not at_once):
            return
        self._sender = self._sender or Sender(self.store, self.folder)
        self._retries.attempt(self._sender.send)

    def _finish_process(self) -> None:
        """Wait for the process that sends; if it has died, send what is left from here."""
        process, self.process = self.process, None
        if process is None:
            return
        code = process.finish()
        self._process_failed = code == FAILED
        if code not in (SENT, FAILED):
            self._send(at_once=True)


def run_tags(recipe: str, folder: Path, parent: Path | None = None) -> dict[str, str]:
    """Return the tags by which a run is found. One with a parent is a trial."""
    return {
        "kind": "trial" if parent else "run",
        "recipe": recipe,
        "folder": str(folder.absolute()),
    }


def _metrics_entry(values: Mapping[str, float], step: int) -> Entry:
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    groups = groups_of(finite)
    return {"is": "metrics", "when": _now(), "step": step, "values": finite, "groups": groups}


def _now() -> int:
    """Return the time in milliseconds, MLflow's unit."""
    return int(time.time() * 1000)
