"""From the journal of a folder to MLflow: everything once, in order, and what fails stays in the
journal.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal
from distvae.track.journal import HEAD, LINES, Entry, Journal
from distvae.track.served import pack
from distvae.track.store import Store, without_secrets

BATCH = 1000  # metrics that MLflow takes at once
EPOCH = "epoch"
"""The figure that MLflow is given last of an epoch: where it has this, it has the others."""
ALIAS = "best"
"""How the registry calls the best run of a sweep."""
AFTERWARDS = ("report",)
"""What may be told of a run or sweep that has ended, without its going on."""


class Sender:
    """Tells MLflow what a folder has to tell."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.journal = store, folder, Journal(folder)
        self.id: str | None = None
        self._client: Any = None
        self._had: set[int] = set()
        """The epochs that the record has."""

    def send(self) -> str:
        """Send everything; the id of the record."""
        fresh = self._client is None
        with self._alone() as record:
            count, pending = 0, self.journal.pending()
            if fresh and any(entry["is"] not in AFTERWARDS for entry in pending):
                self._client.update_run(record, "RUNNING")
            try:
                for _, group in groupby(pending, lambda entry: entry["is"]):
                    entries = list(group)
                    HOW[entries[0]["is"]](self, entries)
                    count += len(entries)
            finally:
                self.journal.mark_sent(count)
        return record

    def create_record(self) -> str:
        """The id of the record, which exists from now on."""
        with self._alone() as record:
            return record

    @contextmanager
    def _alone(self) -> Iterator[str]:
        """The record, while no other process sends; after an error MLflow is asked again what it
        has.
        """
        try:
            parent = None if self._goes_on() else self._parent()
            with self.journal.locked():
                self.id = self._record(parent)
                yield self.id
        except BaseException:
            self._client = None
            raise

    def _goes_on(self) -> bool:
        """Whether this is the record that the folder has had since the last time."""
        return self._client is not None and self.journal.head().get("id") == self.id

    def _parent(self) -> str | None:
        """The record of the sweep that this is a trial of, which exists from now on."""
        folder = self.journal.head().get("parent")
        return (
            Sender(self.store, Path(folder)).create_record()
            if folder and Journal(Path(folder)).head()
            else None
        )

    def _record(self, parent: str | None) -> str:
        """The record that the folder remembers, if this store has it; else a new one."""
        if self.id and self._goes_on():
            return self.id
        head = self.journal.head()
        if "experiment" not in head:
            raise Refusal(
                f"{self.folder / HEAD}: missing; without {LINES} beside it a new record begins"
            )
        client, experiment = self.store.connect(head["experiment"])
        if self._knows(client, head.get("id")):
            record = str(head["id"])
            self.journal.mark_unsent(
                lambda entry: _ends_an_epoch(entry) and entry["step"] not in self._had
            )
        else:
            self._had = set()
            record = self._create(client, experiment, head, parent)
        self._client = client
        return record

    def _knows(self, client: Any, record: str | None) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            if record is None:
                return False
            if client.get_run(record).info.lifecycle_stage == "deleted":
                return False
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        self._had = {int(metric.step) for metric in client.get_metric_history(record, "epoch")}
        return True

    def _create(self, client: Any, experiment: str, head: Entry, parent: str | None) -> str:
        from mlflow.entities import Param

        tags = head["tags"] | _provenance(self.folder)
        if parent:
            tags["mlflow.parentRunId"] = parent
        record = str(client.create_run(experiment, head["began"], tags, head["name"]).info.run_id)
        params = [Param(name, str(value)) for name, value in head["params"].items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            client.log_batch(record, params=params[start : start + 100])
        if inputs := _inputs(self.folder, head["params"]):
            client.log_inputs(record, inputs)
        self.journal.update_head(id=record, store=without_secrets(self.store.uri), told=0)
        return record

    def metrics(self, entries: Sequence[Entry]) -> None:
        """Figures of epochs, each epoch once, and of evaluations."""
        from mlflow.entities import Metric

        told: list[Any] = []
        for entry in entries:
            if _ends_an_epoch(entry):
                if entry["step"] in self._had:
                    continue
                self._had.add(entry["step"])
            values = sorted(entry["values"].items(), key=lambda named: named[0] == EPOCH)
            told += [Metric(name, value, entry["when"], entry["step"]) for name, value in values]
        for start in range(0, len(told), BATCH):
            self._client.log_batch(self.id, told[start : start + BATCH])

    def files(self, entries: Sequence[Entry]) -> None:
        """Files of the folder, by their paths in it, that are still there."""
        for entry in entries:
            for path in entry["paths"]:
                if (self.folder / path).is_file():
                    self._client.log_artifact(self.id, str(self.folder / path), entry["below"])

    def report(self, entries: Sequence[Entry]) -> None:
        """The page about the folder as it is now, if it is still there."""
        page = self.folder / entries[-1]["path"]
        if page.is_file():
            self._client.log_artifact(self.id, str(page), "report")

    def model(self, entries: Sequence[Entry]) -> None:
        """The trained model, as `mlflow.pyfunc.load_model` opens it, which holds all that a run
        folder needs.
        """
        from mlflow.entities import LoggedModelOutput

        kind = str(self.journal.head()["params"].get("model.kind", "model"))
        experiment = self._client.get_run(self.id).info.experiment_id
        made = self._client.create_logged_model(experiment, kind, source_run_id=self.id)
        with tempfile.TemporaryDirectory() as scratch:
            self._client.log_model_artifacts(made.model_id, str(pack(self.folder, Path(scratch))))
        self._client.finalize_logged_model(made.model_id, "READY")
        self._client.log_outputs(
            self.id, [LoggedModelOutput(made.model_id, max(self._had, default=0))]
        )
        self.journal.update_head(model=made.model_id)

    def register(self, entries: Sequence[Entry]) -> None:
        """The model of a run below this sweep in the registry, under an alias that moves on to
        it.
        """
        from mlflow.exceptions import MlflowException

        name, best = entries[-1]["name"], Sender(self.store, self.folder / entries[-1]["folder"])
        run = best.send()
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._client.search_model_versions(f"name = '{name}' and run_id = '{run}'")
        version = (
            known[0].version if known else self._version(name, run, best.journal.head()["model"])
        )
        self._client.set_registered_model_alias(name, ALIAS, version)

    def _version(self, name: str, run: str, model: str) -> str:
        source = self._client.get_logged_model(model).artifact_location
        return str(self._client.create_model_version(name, source, run, model_id=model).version)

    def end(self, entries: Sequence[Entry]) -> None:
        """How it ended."""
        self._client.set_terminated(self.id, entries[-1]["status"], entries[-1]["when"])


HOW: Mapping[str, Callable[[Sender, Sequence[Entry]], None]] = {
    "metrics": Sender.metrics,
    "files": Sender.files,
    "model": Sender.model,
    "register": Sender.register,
    "report": Sender.report,
    "end": Sender.end,
}


def _ends_an_epoch(entry: Entry) -> bool:
    return entry["is"] == "metrics" and EPOCH in entry["values"]


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    facts: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    return facts


def _provenance(folder: Path) -> dict[str, str]:
    """What the run noted of the program and the machine, as tags."""
    if not (facts := _facts(folder)):
        return {}
    groups = {group: facts.get(group) or {} for group in ("versions", "machine")}
    nested = {
        f"{group}.{name}": str(value)
        for group, part in groups.items()
        for name, value in part.items()
    }
    return nested | {"commit": str(facts.get("commit"))}


def _inputs(folder: Path, params: Mapping[str, Any]) -> list[Any]:
    """The data of a run, with its digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not (facts := _facts(folder)):
        return []
    source = json.dumps({"uri": str(params.get("data.path", ""))})
    profile = json.dumps({"rows": facts["rows"], "unit": facts["unit"], "values": facts["dims"]})
    data = Dataset(facts["data"][:500], facts["data_digest"][:36], "local", source, profile=profile)
    return [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
