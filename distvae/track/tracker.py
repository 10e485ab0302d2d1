"""The record of a run or sweep: written into its folder, then sent to MLflow.

Training writes epochs.jsonl, and a `Tracker` writes record.json: the settings, the metrics that
belong to no epoch, and the end. A thread (`Sending`) sends to MLflow everything in the folder that
MLflow lacks (`Sender`), and mlflow.json has the checksums of the sent items. Sending again changes
nothing, so `distvae runs --send` repairs every failure. Training never waits for MLflow.
"""

import hashlib
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, cast

from distvae.config import Config, flatten
from distvae.files.program import is_installed, refuse_missing
from distvae.files.refusal import Refusal, cause, shortened
from distvae.files.storage import Folder
from distvae.files.untrusted import (
    check_plain,
    check_relative,
    markdown_table,
    path_inside,
    read_json,
    refuse_strange_entries,
)
from distvae.numerics.metrics import groups_of
from distvae.share import card_text
from distvae.track.served import pack, run_info
from distvae.track.store import (
    SENT,
    Sent,
    Store,
    error_summary,
    import_mlflow,
    metric_name,
    model_name,
    parameter_name,
    read_sent,
    without_secrets,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from distvae.train.loop import Epoch
    from distvae.train.run_folder import RunInfo

RECORD = "record.json"
"""The document with everything to record except the epochs. The training process writes it."""
LOCK = f".{SENT}.lock"
"""The file that is locked while a process sends the folder."""
TENSORBOARD = "tensorboard"
"""The sink for TensorBoard, and the subfolder of a run with the event files."""
MIN_PAUSE, MAX_PAUSE = 0.5, 5.0
"""Seconds between two rounds of sending."""
SHARE = 0.05
"""The share of time spent on sending. `MAX_PAUSE` limits a pause."""
PATIENCE = 60.0
"""At the end of training, sending stops after this many seconds without an answer from MLflow."""
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
"""The largest numbers of metrics and of parameters in one request to MLflow."""
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

Status = Literal["FINISHED", "FAILED", "KILLED"]
Item = tuple[str, bytes, Callable[[], object]]
"""An item to send: its name, its content, and the function that sends it."""


class Figures(TypedDict):
    """Metrics that belong to no line of epochs.jsonl."""

    step: int
    when: int
    values: Mapping[str, float]


class RecordFile(TypedDict, total=False):
    """The contents of record.json. Times are in milliseconds since 1970, as in MLflow."""

    experiment: str
    name: str
    parent: str | None
    """The folder of the sweep of this trial."""
    began: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    groups: Mapping[str, str]
    """The groups of metrics, which become the prefixes of their names."""
    figures: list[Figures]
    files: dict[str, str]
    """Files of the folder, by plain name, each with its folder in the record."""
    findings: Mapping[str, str]
    """The conclusions of a sweep, as `text`."""
    best: Mapping[str, str]
    """The `folder` of the best run below a sweep, and the `name` of its registered model, or ''."""
    status: Status
    """Absent while the run or sweep is running."""
    ended: int


def read_record(folder: Path) -> RecordFile:
    """Return the record of a folder, or {}."""
    return cast(RecordFile, read_json(folder / RECORD) if (folder / RECORD).exists() else {})


def write_document(folder: Path, name: str, document: RecordFile | Sent) -> None:
    """Write a document, replacing the earlier document, unless the folder was deleted."""
    if folder.is_dir():
        Folder(folder).write(name, json.dumps(document, indent=1).encode())


def recorded_folders(root: Path) -> list[Path]:
    """Return the folders below a root that have a record."""
    return sorted(Path(place) for place, _, files in os.walk(root) if RECORD in files)


def run_tags(recipe: str, folder: Path, parent: Path | None = None) -> dict[str, str]:
    """Return the tags that identify a run. A run with a parent is a trial."""
    kind = "trial" if parent else "run"
    return {"kind": kind, "recipe": recipe, "folder": str(folder.absolute())}


def refuse_missing_packages(sinks: Sequence[str]) -> None:
    """Refuse a sink whose package is not installed."""
    if TENSORBOARD in sinks:
        refuse_missing(f"train.sinks: '{TENSORBOARD}'", "tensorboardX")


@dataclass
class Tracker:
    """Writes the record of a run or sweep. A failure is reported once, and training continues."""

    folder: Path
    """The folder of the run or sweep, which keeps the record."""
    sending: "Sending | None"
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
    _record: RecordFile | None = None
    _board: "TensorBoard | None" = None
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
        sending, params = Sending(Store.find(root), folder), flatten(config)
        tags, sinks = run_tags(recipe, folder, parent), config.train.sinks
        return cls(folder, sending, experiment, folder.name, params, tags, parent, sinks)

    @classmethod
    def of_folder(cls, folder: Path, store: Store) -> "Tracker | None":
        """Return the tracker of an existing record, or None if it belongs to another store."""
        record, uri = read_record(folder), without_secrets(store.uri)
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

        def add(record: RecordFile) -> None:
            _add_groups(record, found)
            record["figures"].append({"step": step, "when": _now(), "values": found})

        self._change(add)

    def findings(self, text: str) -> None:
        """Record the conclusions of a sweep."""
        self._change(lambda record: record.update({"findings": {"text": text}}))

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
        ended: RecordFile = {"status": status, "ended": _now()}
        self._change(lambda record: record.update(ended), goes_on=False)
        self.pause()
        self.wait()

    def wait(self) -> None:
        """Wait until MLflow has everything, as long as MLflow answers."""
        if self.sending:
            self.sending.finish()

    def _change(self, change: Callable[[RecordFile], object], goes_on: bool = True) -> None:
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
            if TENSORBOARD in self.sinks:
                self._attempt("writing for tensorboard", self._update_board)
            if self.sending:
                self.sending.notify(self.folder)

    def _new(self) -> RecordFile:
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
        self._board = self._board or TensorBoard(self.folder, self._record)
        self._board.update(self._record)

    def _copy_epochs(self) -> None:
        from distvae.train.run_folder import EPOCHS

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


def _add_groups(record: RecordFile, figures: Mapping[str, float]) -> None:
    record["groups"] = {**record["groups"], **groups_of(figures)}


def _now() -> int:
    """Return the time in milliseconds, MLflow's unit."""
    return int(time.time() * 1000)


class TensorBoard:
    """The event files of a run. Each process writes all epochs again."""

    def __init__(self, run: Path, record: RecordFile) -> None:
        from tensorboardX import SummaryWriter

        self.run = run
        self._epochs = self._figures = 0  # already written
        for old in (run / TENSORBOARD).glob("events.*"):
            old.unlink()
        self._writer = SummaryWriter(str(run / TENSORBOARD))
        settings = markdown_table(["setting", "value"], sorted(record["params"].items()))
        self._writer.add_text("settings", "\n".join(settings), 0)

    def update(self, record: RecordFile) -> None:
        """Write the new epochs and metrics."""
        from distvae.train.run_folder import read_epochs

        epochs = read_epochs(self.run, first=self._epochs + 1)
        new = record["figures"][self._figures :]
        self._epochs, self._figures = self._epochs + len(epochs), self._figures + len(new)
        for figures in [*(_figures_of(record, epoch) for epoch in epochs), *new]:
            for name, value in figures["values"].items():
                metric = metric_name(name, record["groups"])
                self._writer.add_scalar(metric, value, figures["step"], figures["when"] / 1000)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _figures_of(record: RecordFile, epoch: Mapping[str, float]) -> Figures:
    """Return the metrics of an epoch, with the time when the epoch ended."""
    when = record["began"] + int(1000 * epoch.get("seconds", 0))
    return {"step": int(epoch[EPOCH]), "when": when, "values": epoch}


class Sending:
    """A thread that sends the folders of a run or sweep. It reports each failure once."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.complete = True
        """Whether MLflow had everything at the end of the last round."""
        self._changed: set[Path] = set()
        self._said: set[Path] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._answered = math.inf
        self._patience = PATIENCE

    def notify(self, folder: Path) -> None:
        """Request to send a changed folder soon. The first request imports MLflow."""
        if not is_installed("mlflow"):
            self._say(folder, "the package mlflow is not installed")
            return
        self._changed.add(folder)
        if self._thread is None or not self._thread.is_alive():
            self._over.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait until everything has been sent, as long as MLflow answers.

        If MLflow has once not answered, wait no more before its next answer.
        """
        self._over.set()
        began = time.monotonic()
        while self._thread and self._thread.is_alive():
            self._thread.join(0.1)
            if time.monotonic() > max(self._answered, began) + self._patience:
                self._say(self.folder, f"no answer for {PATIENCE:.0f} seconds")
                self._patience = 0.0
                return

    def __getstate__(self) -> dict[str, object]:
        """Return nothing. Tune pickles its callbacks without reading them back."""
        return {}

    def _run(self) -> None:
        """Send in rounds until `finish`, then everything that is left, unless MLflow fails."""
        pause, goes_on = MIN_PAUSE, True
        while goes_on:
            is_over, began = self._over.wait(pause), time.monotonic()
            self._send_changed()
            pause = min(max(MIN_PAUSE, (time.monotonic() - began) / SHARE), MAX_PAUSE)
            goes_on = not is_over or (bool(self._changed) and self.complete)

    def _send_changed(self) -> None:
        """Send the changed folders until MLflow fails."""
        self.complete = True
        for folder in sorted(self._changed, reverse=True):  # a sweep after its trials
            self._changed.discard(folder)
            try:
                self._send(folder)
            except Exception as error:
                if not folder.is_dir():  # the folder has been deleted
                    continue
                if isinstance(error, Refusal):
                    self._say(folder, str(error))
                    continue
                self._changed.add(folder)
                self._say(self.folder, error_summary(error))
                break

    def _send(self, folder: Path) -> None:
        """Send one folder. Importing MLflow takes seconds without an answer."""
        self._answered = math.inf
        import_mlflow()
        self._answered = time.monotonic()
        for _ in Sender(self.store, folder).send():
            self._answered, self._patience = time.monotonic(), PATIENCE

    def _say(self, folder: Path, reason: str) -> None:
        self.complete = False
        if folder not in self._said:
            self._said.add(folder)
            print(
                f"{folder.name}: recording in MLflow at {without_secrets(self.store.uri)} fails:"
                f" {reason.rstrip('.')}. Nothing else is affected; 'distvae runs --send {folder}'"
                " sends it later.",
                file=sys.stderr,
            )


class Sender:
    """Sends one folder to MLflow."""

    client: "MlflowClient"
    run: "Run"
    """The run of MLflow as it was before sending."""
    last_epoch: int

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.record, self.sent = RecordFile(), Sent()

    @property
    def id(self) -> str:
        """The id of the record."""
        return self.sent["id"]

    def send(self, with_code: bool = False) -> Iterator[str]:
        """Send everything that MLflow lacks, and yield the name of each sent item.

        The model of a trial is sent without the code that opens it, unless `with_code`.
        """
        refuse_strange_entries(self.folder)
        self._read()
        with self._connected(self._parent_id()):
            yield from self._send_epochs()
            for name, content, action in self._items(with_code or not self.record.get("parent")):
                digest = hashlib.sha256(content).hexdigest()
                if self.sent["digests"].get(name) != digest:
                    action()
                    self.sent["digests"][name] = digest
                    write_document(self.folder, SENT, self.sent)
                    yield name

    def _read(self) -> None:
        """Read the record. Refuse links out of the folder in place of the documents."""
        for name in (RECORD, SENT, LOCK):
            path_inside(self.folder, name)
        self.record = read_record(self.folder)
        if "experiment" not in self.record:
            raise Refusal(f"{self.folder / RECORD}: missing; the folder of a recorded run expected")

    def _parent_id(self) -> str | None:
        """Return the record of the sweep that this trial belongs to. Create it if necessary.

        A trial whose folder is outside the sweep's folder has been moved, or its parent is
        invented.
        """
        folder = Path(self.record.get("parent") or "")
        is_above = folder.is_absolute() and self.folder.resolve().is_relative_to(folder.resolve())
        if not is_above or not (folder / RECORD).exists():
            return None
        sweep = Sender(self.store, folder)
        sweep._read()
        with sweep._connected(None):
            return sweep.id

    @contextmanager
    def _connected(self, parent: str | None) -> Iterator[None]:
        """Find or create the record in MLflow, and keep other processes from sending it."""
        from filelock import FileLock
        from mlflow.exceptions import MlflowException

        # a lock file would recreate a deleted folder
        with FileLock(self.folder.resolve(strict=True) / LOCK, is_singleton=True):
            self.client, experiment = self.store.connect(self.record["experiment"])
            self.sent = read_sent(self.folder)
            try:
                run = self.client.get_run(self.id) if "id" in self.sent else None
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                run = None
            if run is None or run.info.lifecycle_stage == "deleted":
                tags = {**self.record["tags"], "folder": str(self.folder.absolute())}
                if parent:
                    tags["mlflow.parentRunId"] = parent
                about = self.record["began"], tags, self.record["name"]
                run = self.client.create_run(experiment, *about)
                self.sent = {"id": str(run.info.run_id), "store": without_secrets(self.store.uri)}
                write_document(self.folder, SENT, self.sent)
            self.run = run
            self.sent.setdefault("digests", {})
            yield

    def _send_epochs(self) -> Iterator[str]:
        """Send the epochs that MLflow does not have, each at the time when it ended."""
        from distvae.train.run_folder import read_epochs

        known = {metric.step for metric in self.client.get_metric_history(self.id, EPOCH)}
        epochs = read_epochs(self.folder)
        new = [epoch for epoch in epochs if int(epoch[EPOCH]) not in known]
        self.last_epoch = int(epochs[-1][EPOCH]) if epochs else 0
        metrics = [m for epoch in new for m in self._metrics(_figures_of(self.record, epoch))]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(self.id, metrics[start : start + METRICS_AT_ONCE])
            yield "epochs"

    def _metrics(self, figures: Figures) -> "list[Metric]":
        """Return figures as MLflow's metrics, the epoch last."""
        from mlflow.entities import Metric

        values = sorted(figures["values"].items(), key=lambda item: item[0] == EPOCH)
        groups, at = self.record["groups"], (figures["when"], figures["step"])
        return [Metric(metric_name(name, groups), value, *at) for name, value in values]

    def _items(self, with_code: bool) -> Iterator[Item]:
        """Yield the items to send after the epochs, in this order."""
        record, info = self.record, run_info(self.folder)
        yield "params", b"", self._send_params
        if info:
            yield "data", b"", partial(self._send_data, info, record["params"])
        for number, figures in enumerate(record["figures"]):
            log = partial(self.client.log_batch, self.id, self._metrics(figures))
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
            yield "findings", content, partial(self._send_findings, findings["text"])
        if best := record.get("best"):
            yield from self._best(best)
        yield "status", json.dumps([status, record.get("ended")]).encode(), self._send_status

    def _files(self) -> Iterator[Item]:
        """Yield the files of the record and of the evaluation, without links."""
        found = {}
        for name, below in self.record["files"].items():
            path = self.folder / check_plain(name, str(self.folder / RECORD))
            found[path] = check_relative(below, str(self.folder / RECORD))
        for path in (self.folder / EVALUATION).rglob("*"):
            if path.suffix in SUFFIXES:
                found[path] = path.parent.relative_to(self.folder).as_posix()
        for path, below in sorted(found.items()):
            if path.is_file() and not path.is_symlink():
                log = partial(self.client.log_artifact, self.id, str(path), below)
                yield f"{below}/{path.name}", path.read_bytes(), log

    def _best(self, best: Mapping[str, str]) -> Iterator[Item]:
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

        known = self.run.data.params
        named = {parameter_name(name): str(value) for name, value in self.record["params"].items()}
        params = [Param(name, value) for name, value in named.items() if name not in known]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(self.id, params=params[start : start + PARAMS_AT_ONCE])

    def _send_data(self, info: "RunInfo", params: Mapping[str, str]) -> None:
        """Send the description of the data, and for a run the facts about program and machine.

        Another process may describe the same data between MLflow's check for existing data and its
        write. MLflow then refuses the description, and finds the data in a second attempt.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag
        from mlflow.exceptions import MlflowException

        if self.record["tags"].get("kind") != "sweep":
            facts: dict[str, object] = {"commit": info.get("commit")}
            facts |= {f"versions.{name}": v for name, v in (info.get("versions") or {}).items()}
            facts |= {f"machine.{name}": v for name, v in (info.get("machine") or {}).items()}
            tags = [RunTag(name, str(value)) for name, value in facts.items()]
            self.client.log_batch(self.id, tags=tags)
        source = json.dumps({"uri": str(params.get("data.path", ""))})
        profile = json.dumps({"rows": info["rows"], "unit": info["unit"], "values": info["dims"]})
        name, digest = info["data"][:500], info["data_digest"][:36]  # the lengths MLflow allows
        data = Dataset(name, digest, "local", source, profile=profile)
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        try:
            self.client.log_inputs(self.id, inputs)
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":
                raise
            self.client.log_inputs(self.id, inputs)

    def _send_model(self, with_code: bool) -> None:
        """Send the trained model in the form that `mlflow.pyfunc.load_model` opens.

        The model holds the files that a run folder needs.
        """
        from mlflow.entities import LoggedModelOutput

        kind, note = self.record["params"].get("model.kind", "model"), {NOTE: self.description()}
        with tempfile.TemporaryDirectory() as scratch:
            pack(self.folder, Path(scratch), with_code)
            experiment = self.run.info.experiment_id
            model = self.client.create_logged_model(experiment, kind, self.id, tags=note)
            self.client.log_model_artifacts(model.model_id, scratch)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(self.id, [LoggedModelOutput(model.model_id, self.last_epoch)])
        self.sent["model"] = str(model.model_id)

    def description(self) -> str:
        """Return the card of this run's model, cut to the length that MLflow accepts."""
        return shortened(card_text(self.folder), DESCRIPTION)

    def _send_findings(self, text: str) -> None:
        """Send the description of a sweep, with a link to its report."""
        experiment = self.run.info.experiment_id
        report = f"#/experiments/{experiment}/runs/{self.id}/artifacts/report/report.html"
        described = f"{text}\n\n[Report]({report})"
        self.client.set_tag(self.id, NOTE, described)
        self.client.set_experiment_tag(experiment, NOTE, described)

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
