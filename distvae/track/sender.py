"""Send the journal of a folder to MLflow: every entry once, in order.

An entry that fails stays in the journal.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal, shortened
from distvae.files.untrusted import check_relative, path_inside
from distvae.share.card import Card
from distvae.track.facts import describe_data, provenance_tags, run_info
from distvae.track.journal import AFTERWARDS, HEAD, LINES, Entry, Head, Journal
from distvae.track.naming import metric_name, model_name, parameter_name
from distvae.track.served import pack
from distvae.track.store import Store, without_secrets
from distvae.track.view import TAG, view_path, view_state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_AT_ONCE = 1000
"""Metrics that MLflow takes in one request."""
PARAMS_AT_ONCE = 100
"""Parameters that MLflow takes in one request."""
EPOCH = "epoch"
"""The figure of an epoch that is sent last. If MLflow has it, it has the others."""
NOTE = "mlflow.note.content"
"""The tag with the description of a run, an experiment or a model."""
DESCRIPTION = 5000
"""Characters of a description that the registry takes."""
ALIAS = "best"
"""The registry's alias for the best run of a sweep."""


class Sender:
    """A connection that sends the journal of a folder to MLflow."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.journal = store, folder, Journal(folder)
        self.id: str | None = None
        self._client: MlflowClient | None = None
        self._logged_epochs: set[int] = set()

    @property
    def client(self) -> "MlflowClient":
        """The client, once a record exists."""
        assert self._client is not None
        return self._client

    def send(self) -> str:
        """Send all pending entries, and return the id of the record."""
        is_first = self._client is None
        with self._locked_record() as record:
            sent, pending = 0, self.journal.pending()
            if is_first and any(entry["is"] not in AFTERWARDS for entry in pending):
                self.client.update_run(record, "RUNNING")
            try:
                for kind, group in groupby(pending, lambda entry: entry["is"]):
                    entries = list(group)
                    HANDLERS[kind](self, entries)
                    sent += len(entries)
            finally:
                self.journal.mark_sent(sent)
        return record

    def create_record(self) -> str:
        """Create the record if it does not exist, and return its id."""
        with self._locked_record() as record:
            return record

    @contextmanager
    def _locked_record(self) -> Iterator[str]:
        """Yield the record's id while no other process sends.

        After an error the record is looked up in MLflow again.
        """
        try:
            parent = None if self._is_connected() else self._parent_record()
            with self.journal.locked():
                self.id = self._find_or_create(parent)
                yield self.id
        except BaseException:
            self._client = None
            raise

    def _is_connected(self) -> bool:
        """Return whether the folder still has the record that was used last."""
        return self._client is not None and self.journal.head().get("id") == self.id

    def _parent_record(self) -> str | None:
        """Return the record of the sweep that this trial belongs to. Create it if necessary.

        A trial whose folder is not in that of the sweep has been moved, or was made up.
        """
        folder = Path(self.journal.head().get("parent") or "")
        is_above = folder.is_absolute() and self.folder.resolve().is_relative_to(folder.resolve())
        if not is_above or not Journal(folder).head():
            return None
        return Sender(self.store, folder).create_record()

    def _find_or_create(self, parent: str | None) -> str:
        """Return the record that the folder names, if this store has it, or a new one."""
        if self.id and self._is_connected():
            return self.id
        head = self.journal.head()
        if "experiment" not in head:
            raise Refusal(
                f"{self.folder / HEAD}: missing; without {LINES} beside it a new record begins"
            )
        client, experiment = self.store.connect(head["experiment"])
        record = head.get("id")
        if record is not None and self._exists(client, record):
            self.journal.mark_unsent(self._is_lost)
        else:
            self._logged_epochs = set()
            record = self._create(client, experiment, head, parent)
        if not self.journal.head().get("described", True):
            self._describe(client, record, head)
        self._client = client
        return record

    def _is_lost(self, entry: Entry) -> bool:
        """Return whether an entry ends an epoch that MLflow does not have."""
        return _ends_an_epoch(entry) and entry["step"] not in self._logged_epochs

    def _exists(self, client: "MlflowClient", record: str) -> bool:
        """Return whether MLflow has a record. Remember the epochs that it has."""
        from mlflow.exceptions import MlflowException

        try:
            if client.get_run(record).info.lifecycle_stage == "deleted":
                return False
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        history = client.get_metric_history(record, EPOCH)
        self._logged_epochs = {int(metric.step) for metric in history}
        return True

    def _create(
        self, client: "MlflowClient", experiment: str, head: Head, parent: str | None
    ) -> str:
        """Create the record and note its id at once, so that another attempt finds it."""
        tags = head["tags"] | {"folder": str(self.folder.absolute())}
        tags |= provenance_tags(run_info(self.folder))
        if parent:
            tags["mlflow.parentRunId"] = parent
        run = client.create_run(experiment, head["began"], tags, head["name"])
        record, uri = str(run.info.run_id), without_secrets(self.store.uri)
        self.journal.update_head(id=record, store=uri, told=0, grouped=True, described=False)
        return record

    def _describe(self, client: "MlflowClient", record: str, head: Head) -> None:
        """Send the parameters of a record and what its data is."""
        from mlflow.entities import Param

        info, settings = run_info(self.folder), head["params"]
        params = [Param(parameter_name(name), str(value)) for name, value in settings.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            client.log_batch(record, params=params[start : start + PARAMS_AT_ONCE])
        if info:
            describe_data(client, record, info, settings)
        self.journal.update_head(described=True)

    def metrics(self, entries: Sequence[Entry]) -> None:
        """Send figures of epochs, each epoch once, and of evaluations."""
        metrics: list[Metric] = []
        grouped = self.journal.head().get("grouped", False)
        for entry in entries:
            if _ends_an_epoch(entry):
                if entry["step"] in self._logged_epochs:
                    continue
                self._logged_epochs.add(entry["step"])
            metrics += _to_metrics(entry, entry.get("groups", {}) if grouped else {})
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(self.id, metrics[start : start + METRICS_AT_ONCE])

    def files(self, entries: Sequence[Entry]) -> None:
        """Send files of the folder that still exist."""
        for entry in entries:
            below = check_relative(entry["below"], str(self.folder / LINES))
            for name in entry["paths"]:
                path = path_inside(self.folder, name)
                if path.is_file():
                    self.client.log_artifact(self.id, str(path), below)

    def findings(self, entries: Sequence[Entry]) -> None:
        """Send what a sweep found: its description, its data, and a view of its trials."""
        entry, sweep = entries[-1], str(self.id)
        experiment = self.client.get_run(sweep).info.experiment_id
        self.client.set_experiment_tag(
            experiment, f"{TAG}{sweep}", view_state(sweep, entry["varied"], entry["ranked"])
        )
        report = f"#/experiments/{experiment}/runs/{sweep}/artifacts/report/report.html"
        links = f"[Report]({report}), [charts]({view_path(experiment, sweep)})"
        text = f"{entry['text']}\n\n{links}"
        self.client.set_tag(sweep, NOTE, text)
        self.client.set_experiment_tag(experiment, NOTE, text)
        if entry["folder"]:
            best = path_inside(self.folder, entry["folder"])
            if info := run_info(best):
                describe_data(self.client, sweep, info, Journal(best).head().get("params", {}))

    def report(self, entries: Sequence[Entry]) -> None:
        """Send the report as it is now, if it still exists."""
        page = path_inside(self.folder, entries[-1]["path"])
        if page.is_file():
            self.client.log_artifact(self.id, str(page), "report")

    def model(self, entries: Sequence[Entry]) -> None:
        """Send the trained model as `mlflow.pyfunc.load_model` opens it.

        It holds everything that a run folder needs.
        """
        from mlflow.entities import LoggedModelOutput

        kind = str(self.journal.head()["params"].get("model.kind", "model"))
        experiment = self.client.get_run(self.id).info.experiment_id
        note = {NOTE: self.description()}
        model = self.client.create_logged_model(experiment, kind, self.id, tags=note)
        with tempfile.TemporaryDirectory() as scratch:
            pack(self.folder, Path(scratch))
            self.client.log_model_artifacts(model.model_id, scratch)
        self.client.finalize_logged_model(model.model_id, "READY")
        last_epoch = max(self._logged_epochs, default=0)
        self.client.log_outputs(self.id, [LoggedModelOutput(model.model_id, last_epoch)])
        self.journal.update_head(model=model.model_id)

    def register(self, entries: Sequence[Entry]) -> None:
        """Register the model of a run below this sweep, and move the alias to it.

        The description of the registered model is that of its best version.
        """
        from mlflow.exceptions import MlflowException

        name = model_name(entries[-1]["name"])
        best = Sender(self.store, path_inside(self.folder, entries[-1]["folder"]))
        run = best.send()
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        of_run = self.client.search_model_versions(f"run_id = '{run}'")
        known = [version.version for version in of_run if version.name == name]
        version = known[0] if known else best.create_version(name, run)
        self.client.set_registered_model_alias(name, ALIAS, version)
        self.client.update_registered_model(name, best.description())

    def create_version(self, name: str, run: str) -> str:
        """Register the model of this run under a name, and return the number of the version."""
        model = self.journal.head()["model"]
        source = self.client.get_logged_model(model).artifact_location
        created = self.client.create_model_version(
            name, source, run, description=self.description(), model_id=model
        )
        return str(created.version)

    def description(self) -> str:
        """Return the card of this run's model, as far as MLflow takes it."""
        return shortened(Card(self.folder).text, DESCRIPTION)

    def end(self, entries: Sequence[Entry]) -> None:
        """Send how the run or sweep ended."""
        self.client.set_terminated(self.id, entries[-1]["status"], entries[-1]["when"])


HANDLERS: Mapping[str, Callable[[Sender, Sequence[Entry]], None]] = {
    "metrics": Sender.metrics,
    "files": Sender.files,
    "findings": Sender.findings,
    "model": Sender.model,
    "register": Sender.register,
    "report": Sender.report,
    "end": Sender.end,
}
"""The method that sends each kind of entry."""


def _ends_an_epoch(entry: Entry) -> bool:
    return entry["is"] == "metrics" and EPOCH in entry["values"]


def _to_metrics(entry: Entry, groups: Mapping[str, str]) -> "list[Metric]":
    """Return the figures of an entry, the epoch last."""
    from mlflow.entities import Metric

    values = sorted(entry["values"].items(), key=lambda item: item[0] == EPOCH)
    when, step = entry["when"], entry["step"]
    return [Metric(metric_name(name, groups), value, when, step) for name, value in values]
