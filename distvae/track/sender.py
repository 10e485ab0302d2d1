"""Send to MLflow the parts of a folder that MLflow lacks. Sending again changes nothing.

The epochs come from epochs.jsonl, and MLflow reports the epochs that it has. Everything else is an
item with a checksum. The folder keeps the checksums of the sent items.
"""

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal, shortened
from distvae.files.untrusted import check_plain, check_relative, path_inside, refuse_strange_entries
from distvae.share.card import Card
from distvae.track.facts import describe_data, provenance_tags, run_info
from distvae.track.naming import metric_name, model_name, parameter_name
from distvae.track.record import (
    RECORD,
    SENT,
    Best,
    Findings,
    Record,
    Sent,
    read_record,
    read_sent,
    write_document,
)
from distvae.track.served import pack
from distvae.track.store import Store, without_secrets
from distvae.track.view import TAG, view_path, view_state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from distvae.train.run_folder import RunInfo

METRICS_AT_ONCE = 1000
"""The largest number of metrics in one request to MLflow."""
PARAMS_AT_ONCE = 100
"""The largest number of parameters in one request to MLflow."""
EPOCH = "epoch"
"""The metric of an epoch that is sent last. If MLflow has it, the epoch is complete."""
EVALUATION = "evaluation"
"""The subfolder of a run whose pictures, sounds and tables are sent."""
SUFFIXES = (".png", ".wav", ".csv", ".json")
NOTE = "mlflow.note.content"
"""The tag with the description of a run, an experiment or a model."""
DESCRIPTION = 5000
"""The largest number of characters in a description that the registry accepts."""
ALIAS = "best"
"""The registry's alias for the best run of a sweep."""

Item = tuple[str, bytes, Callable[[], None]]
"""An item to send: its name, its content, and the function that sends it."""


class Sender:
    """A connection that sends one folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.record, self.sent = Record(), Sent()
        self._client: MlflowClient | None = None
        self._epochs: set[int] = set()

    @property
    def client(self) -> "MlflowClient":
        """The client, once a record exists."""
        assert self._client is not None
        return self._client

    @property
    def id(self) -> str:
        """The id of the record, once it exists."""
        return self.sent["id"]

    def send(self, with_code: bool = False) -> Iterator[str]:
        """Send everything that MLflow lacks, and yield the subject of each answer.

        The model of a trial is sent without the code that opens it, unless `with_code`.
        """
        with self._connected():
            yield from self._send_epochs()
            for name, content, action in self._items(with_code or not self.record.get("parent")):
                digest = hashlib.sha256(content).hexdigest()
                if self.sent["digests"].get(name) != digest:
                    action()
                    self.sent["digests"][name] = digest
                    self._note()
                    yield name

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Find or create the record, and keep other processes from sending it.

        After an error, or after another process has sent, the record is looked up in MLflow again.
        """
        from filelock import FileLock

        refuse_strange_entries(self.folder)
        self.record = read_record(self.folder)
        if "experiment" not in self.record:
            raise Refusal(f"{self.folder / RECORD}: missing; the folder of a recorded run expected")
        parent = None if self._client else self._parent_id()
        # a lock file would recreate a deleted folder; a sweep is locked before its trials
        lock = self.folder.resolve(strict=True) / f".{SENT}.lock"
        with FileLock(lock, is_singleton=True):
            before, self.sent = self.sent, read_sent(self.folder)
            try:
                if self._client is None or self.sent != before:
                    self._connect(parent)
                yield
            except BaseException:
                self._client = None
                raise

    def _parent_id(self) -> str | None:
        """Return the record of the sweep that this trial belongs to. Create it if necessary.

        A trial whose folder is outside the sweep's folder has been moved, or its parent is
        invented.
        """
        folder = Path(self.record.get("parent") or "")
        is_above = folder.is_absolute() and self.folder.resolve().is_relative_to(folder.resolve())
        if not is_above or not read_record(folder):
            return None
        sweep = Sender(self.store, folder)
        with sweep._connected():
            return sweep.id

    def _connect(self, parent: str | None) -> None:
        """Find the record that the folder names in this store, or create a new one."""
        client, experiment = self.store.connect(self.record["experiment"])
        self._epochs = set()
        if "id" in self.sent and _exists(client, self.id):
            history = client.get_metric_history(self.id, EPOCH)
            self._epochs = {int(metric.step) for metric in history}
        else:
            tags = {**self.record["tags"], "folder": str(self.folder.absolute())}
            if parent:
                tags["mlflow.parentRunId"] = parent
            run = client.create_run(experiment, self.record["began"], tags, self.record["name"])
            self.sent = {"id": str(run.info.run_id), "store": without_secrets(self.store.uri)}
        self.sent.setdefault("digests", {})
        self._note()
        self._client = client

    def _note(self) -> None:
        """Write down the state of MLflow's copy."""
        self.sent["epochs"] = max(self._epochs, default=0)
        write_document(self.folder, SENT, self.sent)

    def _send_epochs(self) -> Iterator[str]:
        """Send the epochs that MLflow does not have, each at the time when it ended."""
        from distvae.train.run_folder import read_epochs

        waiting = set[int]()
        metrics: list[Metric] = []
        for epoch in read_epochs(self.folder):
            step = int(epoch[EPOCH])
            if step not in self._epochs | waiting:
                when = self.record["began"] + int(1000 * epoch.get("seconds", 0))
                metrics += self._metrics(epoch, step, when)
                waiting.add(step)
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(self.id, metrics[start : start + METRICS_AT_ONCE])
            yield "epochs"
        if waiting:
            self._epochs |= waiting
            self._note()

    def _metrics(self, figures: Mapping[str, float], step: int, when: int) -> "list[Metric]":
        """Return figures as MLflow's metrics, the epoch last."""
        from mlflow.entities import Metric

        values = sorted(figures.items(), key=lambda item: item[0] == EPOCH)
        groups = self.record["groups"]
        return [Metric(metric_name(name, groups), value, when, step) for name, value in values]

    def _items(self, with_code: bool) -> Iterator[Item]:
        """Yield the items to send after the epochs, in this order."""
        record, info = self.record, run_info(self.folder)
        yield "params", b"", self._send_params
        if info:
            yield "data", b"", partial(self._send_data, info, record["params"])
        for number, figures in enumerate(record["figures"]):
            metrics = self._metrics(figures["values"], figures["step"], figures["when"])
            log = partial(self.client.log_batch, self.id, metrics)
            yield f"figures {number}", json.dumps(figures).encode(), log
        status = record.get("status")
        if status:
            yield from self._files()
            if status == "FINISHED" and (self.folder / "best.json").is_file():
                content = (self.folder / "best.json").read_bytes()
                name = "model" if with_code else "weights"
                yield name, content, partial(self._send_model, with_code)
        if findings := record.get("findings"):
            content = json.dumps(findings).encode()
            yield "findings", content, partial(self._send_findings, findings)
        if best := record.get("best"):
            yield from self._best(best)
        yield "status", json.dumps([status, record.get("ended")]).encode(), self._send_status

    def _files(self) -> Iterator[Item]:
        """Yield the files of the record and of the evaluation, without links."""
        found = {}
        for name, below in self.record["files"].items():
            path = self.folder / check_plain(name, str(self.folder / RECORD))
            found[path] = check_relative(below, str(self.folder / RECORD))
        for place, _, names in os.walk(self.folder / EVALUATION):
            for name in names:
                if name.endswith(SUFFIXES):
                    path = Path(place, name)
                    found[path] = path.parent.relative_to(self.folder).as_posix()
        for path, below in sorted(found.items()):
            if path.is_file() and not path.is_symlink():
                log = partial(self.client.log_artifact, self.id, str(path), below)
                yield f"{below}/{path.name}", path.read_bytes(), log

    def _best(self, best: Best) -> Iterator[Item]:
        """Yield the data of the best run of a sweep, and its registered model."""
        folder = path_inside(self.folder, best["folder"])
        if info := run_info(folder):
            params = read_record(folder).get("params", {})
            yield "data", b"", partial(self._send_data, info, params)
        if best["name"]:
            run = Sender(self.store, folder)
            deque(run.send(with_code=True), maxlen=0)
            content = json.dumps([best, run.sent["model"]]).encode()
            yield "registered", content, partial(self._register, model_name(best["name"]), run)

    def _send_params(self) -> None:
        """Send parameters. A resumed run may change a parameter, which MLflow refuses."""
        from mlflow.entities import Param

        known = self.client.get_run(self.id).data.params
        named = {parameter_name(name): str(value) for name, value in self.record["params"].items()}
        params = [Param(name, value) for name, value in named.items() if name not in known]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(self.id, params=params[start : start + PARAMS_AT_ONCE])

    def _send_data(self, info: "RunInfo", params: Mapping[str, str]) -> None:
        """Send the description of the data, and for a run the facts about program and machine."""
        from mlflow.entities import RunTag

        if self.record["tags"].get("kind") != "sweep":
            tags = [RunTag(name, value) for name, value in provenance_tags(info).items()]
            self.client.log_batch(self.id, tags=tags)
        describe_data(self.client, self.id, info, params)

    def _send_model(self, with_code: bool) -> None:
        """Send the trained model in the form that `mlflow.pyfunc.load_model` opens.

        The model holds the files that a run folder needs.
        """
        from mlflow.entities import LoggedModelOutput

        kind = self.record["params"].get("model.kind", "model")
        experiment = self.client.get_run(self.id).info.experiment_id
        with tempfile.TemporaryDirectory() as scratch:
            pack(self.folder, Path(scratch), with_code)
            note = {NOTE: self.description()}
            model = self.client.create_logged_model(experiment, kind, self.id, tags=note)
            self.client.log_model_artifacts(model.model_id, scratch)
        self.client.finalize_logged_model(model.model_id, "READY")
        last_epoch = max(self._epochs, default=0)
        self.client.log_outputs(self.id, [LoggedModelOutput(model.model_id, last_epoch)])
        self.sent["model"] = str(model.model_id)

    def description(self) -> str:
        """Return the card of this run's model, cut to the length that MLflow accepts."""
        return shortened(Card(self.folder).text, DESCRIPTION)

    def _send_findings(self, findings: Findings) -> None:
        """Send the description of a sweep and a view of its trials."""
        experiment = self.client.get_run(self.id).info.experiment_id
        view = view_state(self.id, findings["varied"], findings["ranked"])
        self.client.set_experiment_tag(experiment, f"{TAG}{self.id}", view)
        report = f"#/experiments/{experiment}/runs/{self.id}/artifacts/report/report.html"
        links = f"[Report]({report}), [charts]({view_path(experiment, self.id)})"
        text = f"{findings['text']}\n\n{links}"
        self.client.set_tag(self.id, NOTE, text)
        self.client.set_experiment_tag(experiment, NOTE, text)

    def _register(self, name: str, best: "Sender") -> None:
        """Register the model of a run, and move the alias to it.

        The registered model takes the description of its best version.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model, description = best.sent["model"], best.description()
        of_run = self.client.search_model_versions(f"run_id = '{best.id}'")
        versions = [each.version for each in of_run if each.name == name]
        if not versions:
            source = self.client.get_logged_model(model).artifact_location
            created = self.client.create_model_version(
                name, source, best.id, description=description, model_id=model
            )
            versions = [created.version]
        self.client.set_registered_model_alias(name, ALIAS, str(versions[0]))
        self.client.update_registered_model(name, description)

    def _send_status(self) -> None:
        if status := self.record.get("status"):
            self.client.set_terminated(self.id, status, self.record["ended"])
        else:
            self.client.update_run(self.id, "RUNNING")


def _exists(client: "MlflowClient", record: str) -> bool:
    """Return whether MLflow has a record."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(record).info.lifecycle_stage != "deleted")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
