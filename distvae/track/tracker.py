"""The record of a run or sweep while it goes on."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distvae.config import Config, flatten
from distvae.track.journal import HEAD, Entry, Journal
from distvae.track.retries import Retries
from distvae.track.sender import Sender
from distvae.track.store import Store, without_secrets

if TYPE_CHECKING:
    from distvae.train.epoch import Epoch

Status = Literal["FINISHED", "FAILED", "KILLED"]
SHOWN = (".png", ".wav", ".csv", ".json")


@dataclass
class Tracker:
    """The record of a run or sweep: it begins with the first thing there is to tell, or goes on
    with a resumed one.
    """

    store: Store | None
    """None: another process sends what this one writes down."""
    experiment: str
    name: str
    folder: Path
    """The folder of the run or sweep, which keeps what there is to tell until MLflow has it."""
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    parent: Path | None = None
    """The folder of the sweep that it belongs to."""
    _sender: Sender | None = None
    _began: int = field(default_factory=lambda: _now())

    def __post_init__(self) -> None:
        """Nothing has failed yet."""
        lost = "Training goes on; MLflow will lack this."
        self._disk = Retries(
            f"{self.name}: {self.folder} does not take notes",
            lost,
            f"{self.name}: notes are taken again.",
        )
        where = without_secrets(self.store.uri) if self.store else ""
        self._retries = Retries(
            f"{self.name}: MLflow at {where} does not take what there is to tell",
            f"It is kept in {self.folder}, and 'distvae sync' sends it; nothing else is affected.",
            f"{self.name}: MLflow has everything now.",
        )

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
        """The record of a run in training. Nothing is written before its first epoch has ended."""
        tags = run_tags(recipe, folder, parent)
        return cls(Store.find(root), experiment, folder.name, folder, flatten(config), tags, parent)

    @classmethod
    def of_folder(cls, folder: Path, store: Store) -> "Tracker | None":
        """The record that a folder has in a store, or will have there once it takes what is
        waiting.
        """
        if not (head := Journal(folder).head()) or head.get(
            "store", without_secrets(store.uri)
        ) != without_secrets(store.uri):
            return None
        parent = Path(head["parent"]) if head["parent"] else None
        return cls(
            store, head["experiment"], head["name"], folder, head["params"], head["tags"], parent
        )

    @property
    def id(self) -> str | None:
        """The id of the record, once MLflow has it."""
        return self._sender.id if self._sender else None

    @property
    def complete(self) -> bool:
        """Whether MLflow has everything."""
        return not (self._disk.failing or self._retries.failing)

    @property
    def viewer(self) -> str:
        """How to look at it."""
        return self.store.viewer if self.store else ""

    def create(self) -> None:
        """Create the record, or find the one to go on with."""
        if self._disk.attempt(self._head):
            self._deliver()

    def epoch(self, record: "Epoch") -> None:
        """Log an epoch, once."""
        self._tell(_metrics(record.metrics(), record.epoch))

    def evaluation(self, summary: Mapping[str, float], folder: Path) -> None:
        """Log final figures, and the pictures, sounds and tables of a folder."""
        self._tell(_metrics(summary, 0))  # of one step, which MLflow draws as bars
        below = sorted({path.parent for path in folder.rglob("*") if path.suffix in SHOWN})
        for place in below:
            shown = sorted(path for path in place.iterdir() if path.suffix in SHOWN)
            self.files(shown, (Path("evaluation") / place.relative_to(folder)).as_posix())

    def model(self) -> None:
        """Log the trained model, with what it takes to open the run again."""
        self._tell({"is": "model"})

    def files(self, paths: Iterable[Path], below: str) -> None:
        """Keep some files of the folder in a folder of the record."""
        inside = [str(path.absolute().relative_to(self.folder.absolute())) for path in paths]
        self._tell({"is": "files", "paths": inside, "below": below})

    def report(self, page: Path) -> None:
        """Keep the page about the folder, which may be written long after the end; it replaces the
        one before.
        """
        self._tell({"is": "report", "path": page.name})

    def register(self, name: str, run: Path) -> None:
        """Enter the model of a run below this sweep into the registry, as the best under that
        name.
        """
        self._tell(
            {
                "is": "register",
                "name": name,
                "folder": str(run.absolute().relative_to(self.folder.absolute())),
            }
        )

    def close(self, status: Status = "FINISHED") -> None:
        """Say how it ended; what failed before its first epoch is recorded by this alone."""
        self._tell({"is": "end", "status": status, "when": _now()}, hurried=True)

    def _tell(self, entry: Entry, hurried: bool = False) -> None:
        """Write it down, and send what was written down. What has no folder has nothing to tell."""
        if self.folder.is_dir() and self._disk.attempt(lambda: self._note(entry)):
            self._deliver(hurried)

    def _note(self, entry: Entry) -> None:
        self._head()
        Journal(self.folder).append(entry)

    def _head(self) -> None:
        if not (self.folder / HEAD).exists():
            parent = str(self.parent.absolute()) if self.parent else None
            head = {
                "experiment": self.experiment,
                "name": self.name,
                "parent": parent,
                "began": self._began,
            }
            params = {name: str(value) for name, value in self.params.items()}
            Journal(self.folder).write_head(head | {"tags": dict(self.tags), "params": params})

    def _deliver(self, hurried: bool = False) -> None:
        if self.store is not None and (hurried or not self._retries.resting):
            self._sender = self._sender or Sender(self.store, self.folder)
            self._retries.attempt(self._sender.send)


def run_tags(recipe: str, folder: Path, parent: Path | None = None) -> dict[str, str]:
    """What a run is found by; one with a parent is a trial."""
    return {
        "kind": "trial" if parent else "run",
        "recipe": recipe,
        "folder": str(folder.absolute()),
    }


def _metrics(values: Mapping[str, float], step: int) -> Entry:
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    return {"is": "metrics", "when": _now(), "step": step, "values": finite}


def _now() -> int:
    """Milliseconds, as MLflow counts them."""
    return int(time.time() * 1000)
