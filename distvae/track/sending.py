"""From the journal of a folder to MLflow: everything once, in order, and what fails stays in the journal."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from distvae.track.journal import Entry, Journal
from distvae.track.served import pack
from distvae.track.store import Store, public

BATCH = 1000  # metrics that MLflow takes at once
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
        self._last = 0
        """The last epoch that the record has."""

    def send(self) -> str:
        """Send everything; the id of the record."""
        with self.journal.alone():
            begun = self._client is not None
            self.id = self._record()
            count, pending = 0, self.journal.pending()
            if not begun and any(entry["is"] not in AFTERWARDS for entry in pending):
                self._client.update_run(self.id, "RUNNING")
            try:
                for _, group in groupby(pending, lambda entry: entry["is"]):
                    entries = list(group)
                    HOW[entries[0]["is"]](self, entries)
                    count += len(entries)
            finally:
                if count:
                    self.journal.told(count)
            return self.id

    def begin(self) -> str:
        """The id of the record, which exists from now on."""
        with self.journal.alone():
            self.id = self._record()
            return self.id

    def _record(self) -> str:
        """The record that the folder remembers, if this store has it; else a new one."""
        if self._client is not None and self.id:
            return self.id
        head = self.journal.head()
        client, experiment = self.store.connect(head["experiment"])
        known = head.get("id") if self._knows(client, head.get("id")) else None
        record = str(known or self._create(client, experiment, head))
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
        self._last = max((int(metric.step) for metric in client.get_metric_history(record, "epoch")), default=0)
        return True

    def _create(self, client: Any, experiment: str, head: Entry) -> str:
        from mlflow.entities import Param

        tags = head["tags"] | _provenance(self.folder)
        if (parent := head["parent"]) and Journal(Path(parent)).head():
            tags["mlflow.parentRunId"] = Sender(self.store, Path(parent)).begin()
        record = str(client.create_run(experiment, head["began"], tags, head["name"]).info.run_id)
        params = [Param(name, str(value)) for name, value in head["params"].items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            client.log_batch(record, params=params[start : start + 100])
        if inputs := _inputs(self.folder, head["params"]):
            client.log_inputs(record, inputs)
        self.journal.remember(id=record, store=public(self.store.uri), told=0)
        return record

    def metrics(self, entries: Sequence[Entry]) -> None:
        """Figures of epochs, each epoch once, and of evaluations."""
        from mlflow.entities import Metric

        told: list[Any] = []
        for entry in entries:
            if "epoch" in entry["values"]:
                if entry["step"] <= self._last:
                    continue
                self._last = entry["step"]
            told += [Metric(name, value, entry["when"], entry["step"]) for name, value in entry["values"].items()]
        for start in range(0, len(told), BATCH):
            self._client.log_batch(self.id, told[start : start + BATCH])

    def files(self, entries: Sequence[Entry]) -> None:
        """Files of the folder, by their paths in it."""
        for entry in entries:
            for path in entry["paths"]:
                self._client.log_artifact(self.id, str(self.folder / path), entry["below"])

    def report(self, entries: Sequence[Entry]) -> None:
        """The page about the folder as it is now, if it is still there."""
        page = self.folder / entries[-1]["path"]
        if page.is_file():
            self._client.log_artifact(self.id, str(page), "report")

    def model(self, entries: Sequence[Entry]) -> None:
        """The trained model, as `mlflow.pyfunc.load_model` opens it, which holds all that a run folder needs."""
        from mlflow.entities import LoggedModelOutput

        kind = str(self.journal.head()["params"].get("model.kind", "model"))
        experiment = self._client.get_run(self.id).info.experiment_id
        made = self._client.create_logged_model(experiment, kind, source_run_id=self.id)
        with tempfile.TemporaryDirectory() as scratch:
            self._client.log_model_artifacts(made.model_id, str(pack(self.folder, Path(scratch))))
        self._client.finalize_logged_model(made.model_id, "READY")
        self._client.log_outputs(self.id, [LoggedModelOutput(made.model_id, self._last)])
        self.journal.remember(model=made.model_id)

    def register(self, entries: Sequence[Entry]) -> None:
        """The model of a run below this sweep in the registry, under an alias that moves on to it."""
        from mlflow.exceptions import MlflowException

        name, best = entries[-1]["name"], Sender(self.store, self.folder / entries[-1]["folder"])
        run = best.send()
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._client.search_model_versions(f"name = '{name}' and run_id = '{run}'")
        version = known[0].version if known else self._version(name, run, best.journal.head()["model"])
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


def _facts(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    facts: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    return facts


def _provenance(folder: Path) -> dict[str, str]:
    """What the run noted of the program and the machine, as tags."""
    if not (facts := _facts(folder)):
        return {}
    groups = {group: facts.get(group) or {} for group in ("versions", "machine")}
    nested = {f"{group}.{name}": str(value) for group, part in groups.items() for name, value in part.items()}
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
