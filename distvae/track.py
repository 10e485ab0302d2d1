"""What is remembered of runs and sweeps in MLflow, and the only module that touches it.

Recording is a courtesy: whatever goes wrong here is said once, in a sentence, and never reaches training.
"""

import json
import logging
import math
import os
import re
import shlex
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distvae.config import Config, flatten

if TYPE_CHECKING:
    from distvae.train.loop import Epoch

Status = Literal["FINISHED", "FAILED", "KILLED"]
MEMORY = "mlflow.json"
"""The file of a run folder that remembers which record belongs to it."""
SHOWN = (".png", ".wav", ".csv", ".json")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is down must not hold up training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def public(text: str) -> str:
    """A URI, or a message that holds some, without user names, passwords and tokens."""
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)=)[^&\s]+", r"\1...", text)


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps its records."""

    uri: str

    @classmethod
    def find(cls, root: Path) -> "Store":
        """The store of MLFLOW_TRACKING_URI, or the one embedded in a folder of runs. Paths become absolute."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        scheme, slashes, path = uri.partition(":///")
        return cls(f"sqlite:///{Path(path).absolute()}" if slashes and scheme == "sqlite" else uri)

    @property
    def file(self) -> Path | None:
        """The database of an embedded store."""
        path = self.uri.removeprefix("sqlite:///")
        return Path(path) if path != self.uri else None

    @property
    def look(self) -> str:
        """How to look at it."""
        if self.uri.startswith("http"):
            return public(self.uri)
        return f"mlflow ui --backend-store-uri {shlex.quote(public(self.uri))} --host 127.0.0.1"

    def connect(self, experiment: str) -> tuple[Any, str]:
        """A client, and the id of an experiment that exists from now on."""
        if self.file is None:
            return _connect(self.uri, experiment, None)
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):  # first users that create the tables side by side fail
            with closing(sqlite3.connect(self.file)) as database:  # says at once what takes MLflow 100 s
                database.execute("pragma journal_mode=wal")
            return _connect(self.uri, experiment, (self.file.parent / "mlartifacts").as_uri())


def _connect(uri: str, experiment: str, artifacts: str | None) -> tuple[Any, str]:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return client, found.experiment_id if found else client.create_experiment(experiment, artifacts)


def _complain(sentence: str) -> None:
    print(sentence, file=sys.stderr)


@dataclass
class Tracker:
    """The record of a run or sweep: it begins with the first thing there is to tell, or goes on with a resumed one."""

    store: Store
    experiment: str
    name: str
    folder: Path
    """The folder of the run or sweep, which remembers the record's id."""
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    complain: Callable[[str], None] = _complain
    id: str | None = None
    _client: Any = None
    _began: int = field(default_factory=lambda: _now())
    _last: int = 0
    """The last epoch the record has."""
    _pending: list["tuple[int, Epoch]"] = field(default_factory=list)
    """Epochs still to be logged, and when they ended: after a failure they wait for the end, to hold up nothing."""
    _complained: bool = False

    @classmethod
    def open(
        cls,
        config: Config,
        recipe: str,
        folder: Path,
        experiment: str,
        parent: str | None = None,
        name: str = "",
        root: Path = Path("runs"),
    ) -> "Tracker":
        """The record of a run in training. Nothing is written before its first epoch has ended."""
        tags = run_tags(recipe, folder, parent)
        return cls(Store.find(root), experiment, name or folder.name, folder, flatten(config), tags)

    def begin(self) -> str | None:
        """Create the record, or find the one to go on with: its id, or None where that failed."""
        with self._forgiving():
            self._begin()
        return self.id

    def epoch(self, record: "Epoch") -> None:
        """Log an epoch, once."""
        self._pending.append((_now(), record))
        if not self._complained:
            with self._forgiving():
                self._catch_up()

    def evaluation(self, summary: Mapping[str, float], folder: Path) -> None:
        """Log final figures, and the pictures, sounds and tables of a folder."""
        with self._forgiving():
            self._catch_up()
            self._log(summary, _now(), self._last)
            for path in sorted(path for path in folder.rglob("*") if path.suffix in SHOWN):
                self._keep(path, (Path("evaluation") / path.parent.relative_to(folder)).as_posix())

    def checkpoint(self, folder: Path) -> None:
        """Keep what it takes to load the run again."""
        self.files([*sorted(folder.glob("best*")), folder / "config.yaml", folder / "run.json"], "checkpoint")

    def files(self, paths: Iterable[Path], below: str) -> None:
        """Keep some files in a folder of the record."""
        with self._forgiving():
            self._catch_up()
            for path in paths:
                self._keep(path, below)

    def close(self, status: Status = "FINISHED") -> None:
        """Say how it ended; what failed before its first epoch is recorded by this alone."""
        with self._forgiving():
            self._catch_up()
            self._client.set_terminated(self.id, status)

    def _catch_up(self) -> None:
        self._begin()
        for when, record in self._pending:
            if record.epoch > self._last:
                self._log(record.metrics(), when, record.epoch)
                self._last = record.epoch
        self._pending.clear()

    def _begin(self) -> None:
        if self._client is not None:
            return
        client, experiment = self.store.connect(self.experiment)
        if not self._go_on(client):
            tags = {**self.tags, **_provenance(self.folder)}
            self.id = str(client.create_run(experiment, self._began, tags, self.name).info.run_id)
            self._client = client
            self._remember()
            client.log_batch(self.id, params=_params(self.params))
        self._client = client

    def _go_on(self, client: Any) -> bool:
        """Whether the folder remembers a record that this store has."""
        from mlflow.exceptions import MlflowException

        file = self.folder / MEMORY
        if not file.exists():
            return False
        self.id = str(json.loads(file.read_bytes())["id"])
        try:
            client.update_run(self.id, "RUNNING")
        except MlflowException:
            return False
        self._last = max((int(metric.step) for metric in client.get_metric_history(self.id, "epoch")), default=0)
        return True

    def _remember(self) -> None:
        from distvae.storage import Folder

        if self.folder.is_dir():
            memory = {"id": self.id, "store": public(self.store.uri)}
            Folder(self.folder).write(MEMORY, json.dumps(memory).encode())

    def _keep(self, path: Path, below: str) -> None:
        self._client.log_artifact(self.id, str(path), below)

    def _log(self, values: Mapping[str, float], when: int, step: int) -> None:
        from mlflow.entities import Metric

        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._client.log_batch(self.id, [Metric(name, value, when, step) for name, value in finite.items()])

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._complained:
                cause = public(" ".join(str(error).split()))[:300] or type(error).__name__
                self.complain(f"MLflow does not record everything of {self.name}: {cause}. Nothing else is affected.")
            self._complained = True


def run_tags(recipe: str, folder: Path, parent: str | None = None) -> dict[str, str]:
    """What a run is found by; one with a parent is a trial."""
    tags = {"kind": "trial" if parent else "run", "recipe": recipe, "folder": str(folder.absolute())}
    return tags | ({"mlflow.parentRunId": parent} if parent else {})


def _now() -> int:
    """Milliseconds, as MLflow counts them."""
    return int(time.time() * 1000)


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in values.items()]


def _provenance(folder: Path) -> dict[str, str]:
    """What the run noted of the program and the machine, as tags."""
    file = folder / "run.json"
    if not file.exists():
        return {}
    facts = json.loads(file.read_bytes())
    groups = {group: facts.get(group) or {} for group in ("versions", "machine")}
    nested = {f"{group}.{name}": str(value) for group, part in groups.items() for name, value in part.items()}
    return nested | {"commit": str(facts.get("commit"))}
