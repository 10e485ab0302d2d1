"""The store of MLflow's records: a server, or a database in the folder of runs.

Records are listed here, their folders are found, and the models of other machines are downloaded.

MLflow shows metrics with the same prefix together: a metric `pesq_wb` of the group `quality` is
`quality/pesq_wb` there. Records from before groups existed have plain names, and so have metrics
outside this package.
"""

import logging
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, cast, get_args
from urllib.parse import unquote

from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal, cause, nearest
from distvae.files.storage import sqlite_uri
from distvae.files.untrusted import printable, read_json
from distvae.numerics.metrics import Group
from distvae.share import summaries

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

SERVER_OPTIONS = (
    "--workers",
    "1",
    "--uvicorn-opts",
    "--log-level warning --timeout-graceful-shutdown 5",
)
"""Options of MLflow's server. Without a timeout, Ctrl-C waits until browsers have closed their
connections.
"""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a dead server must not delay training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL may hold a password
    # jobs are for language models, and would keep four processes waiting
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Environment variables that make MLflow quiet and quick to give up."""
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""The tag by which MLflow's pages recognise an experiment about training."""

REFUSED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in the names of parameters."""
METRIC = re.compile(r"""metrics?\.(?:`([^`]+)`|"([^"]+)"|([\w.]+))""")
"""A metric in a filter of MLflow."""
SENT = "mlflow.json"
"""The document with the state of MLflow's copy. The sending process writes it."""
NEEDED = ("run.json", "config.yaml", "best.json")
"""The files of a run that describe the weights."""
HISTORY = ("epochs.jsonl", "events.jsonl")
"""The files of a run with the history of training."""
Kind = Literal["run", "sweep", "trial"]
BEST = "best:"
SHORT = 8  # characters of an id that are shown
MIN_PREFIX = 4  # the shortest usable beginning of an id, in characters
MAX_RUNS = 50_000  # experiments, or runs, that MLflow returns at once
MAX_NAMED = 5  # records that a message about an ambiguous name lists


def without_secrets(text: str) -> str:
    """Return a URI, or a message with URIs, without user names, passwords and tokens."""
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)=)[^&\s]+", r"\1...", text)


def import_mlflow() -> None:
    """Import MLflow, which takes seconds, with quiet settings."""
    refuse_missing("a record in MLflow", "mlflow")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for library in ("alembic", "mlflow"):  # Ray Tune imports MLflow before its level is set
        logging.getLogger(library).setLevel(logging.ERROR)
    import mlflow  # noqa: F401


def error_summary(error: Exception) -> str:
    """Return the message of an error on one line, without secrets."""
    text = without_secrets(cause(error))
    if "Max retries exceeded" in text:
        return "nothing answers there"
    return text[:300]


@dataclass(frozen=True)
class Store:
    """The place of MLflow's records."""

    uri: str

    @classmethod
    def find(cls, root: Path) -> "Store":
        """Return the store in MLFLOW_TRACKING_URI, or the store in a folder of runs."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")
        scheme, slashes, rest = uri.partition(":///")
        if slashes and scheme == "sqlite":
            path, mark, options = rest.partition("?")
            uri = f"{sqlite_uri(Path(unquote(path)).absolute())}{mark}{options}"
        return cls(uri)

    @property
    def file(self) -> Path | None:
        """The database of an embedded store, or None."""
        path = self.uri.removeprefix("sqlite:///").partition("?")[0]
        return Path(unquote(path)) if self.uri.startswith("sqlite:///") else None

    @property
    def viewer(self) -> str:
        """The address or the command for a person to view the records."""
        return without_secrets(self.uri) if self.uri.startswith("http") else "distvae ui"

    def client(self) -> "MlflowClient":
        """Return a client, without checking that the store exists."""
        import_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def connect(self, experiment: str) -> "tuple[MlflowClient, str]":
        """Return a client, and the id of an experiment, which is created if necessary."""
        with self._locked():
            client = self.client()
            found = client.get_experiment_by_name(experiment)
            if found:
                return client, str(found.experiment_id)
            artifacts = (self.file.parent / "mlartifacts").as_uri() if self.file else None
            return client, str(client.create_experiment(experiment, artifacts, TRAINING))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock an embedded store, because two processes cannot create its tables at once."""
        if self.file is None:
            yield
            return
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):
            # a damaged file fails here at once; MLflow would try for 100 s
            with closing(sqlite3.connect(self.file)) as database:
                database.execute("pragma journal_mode=wal")
            yield

    def open_client(self) -> "MlflowClient":
        """Return a client to read with.

        Raise `Refusal` if the store does not exist, does not answer, or is of a newer MLflow.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if self.file is not None and not self.file.is_file():
            raise Refusal(
                f"{self.file}: no records; 'distvae train' and 'distvae tune' make them, or set"
                " MLFLOW_TRACKING_URI"
            )
        try:
            client = self.client()
            client.search_experiments(max_results=1)
        # ImportError: the driver of a database is missing
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            reason = error_summary(getattr(error, "orig", None) or error)
            uri = without_secrets(self.uri)
            raise Refusal(f"{uri}: {reason}; a store that this MLflow can read expected") from error
        return client


def metric_name(figure: str, groups: Mapping[str, str]) -> str:
    """Return the name of a metric in MLflow, where `groups` maps metrics to their groups."""
    return f"{groups[figure]}/{figure}" if figure in groups else figure


def figure_name(metric: str) -> str:
    """Return the plain name of a metric of MLflow."""
    group, _, figure = metric.partition("/")
    return figure if group in get_args(Group) else metric


def parameter_name(setting: str) -> str:
    """Return the name of a setting in MLflow, which refuses `axis.model.latent#2` for example."""
    return REFUSED.sub(":", setting)


def model_name(sweep: str) -> str:
    """Return the name of a registered model, for which MLflow refuses '/' and ':'."""
    return re.sub("[/:]", "-", sweep)


def grouped_filter(where: str, metrics: Iterable[str]) -> str:
    """Translate the plain names in a filter to the names of MLflow's metrics."""
    names = {figure_name(metric): metric for metric in sorted(metrics)}

    def rename(found: re.Match[str]) -> str:
        figure = next(text for text in found.groups() if text)
        return f"metrics.`{names.get(figure, figure)}`"

    return METRIC.sub(rename, where)


class Sent(TypedDict, total=False):
    """The contents of mlflow.json. The address of the store has no password."""

    id: str
    store: str
    model: str
    """The id of the logged model."""
    digests: dict[str, str]
    """Checksums of the sent items."""


def read_sent(folder: Path) -> Sent:
    """Return the state of MLflow's copy of a folder, or {}."""
    return cast(Sent, read_json(folder / SENT) if (folder / SENT).exists() else {})


@dataclass(frozen=True)
class Record:
    """A run, sweep or trial in MLflow."""

    id: str
    kind: Kind
    name: str
    experiment: str
    experiment_id: str
    status: str
    began: float
    """Seconds since 1970."""
    seconds: float | None
    """None for a record that is running, or whose end is unknown."""
    folder: Path
    parent: str | None
    metrics: dict[str, float]
    params: dict[str, str]


def ordered_by(metric: str, ascending: bool) -> list[str]:
    """Return MLflow's order of records by a metric, whose group is not known."""
    plain, order = metric.replace("`", ""), "ASC" if ascending else "DESC"
    groups = [*(f"{group}/" for group in get_args(Group)), ""]
    return [f"metrics.`{group}{plain}` {order}" for group in groups]


def list_records(
    store: Store,
    where: str = "",
    kinds: Sequence[Kind] = ("run", "sweep", "trial"),
    parent: str = "",
    order: Sequence[str] = (),
    limit: int = MAX_RUNS,
) -> list[Record]:
    """Return records, by default the latest first. `where` is a filter in MLflow's syntax, in which
    the metrics may have plain names. MLflow takes milliseconds for each record that it returns.
    """
    from mlflow.exceptions import MlflowException

    client = store.open_client()
    experiments = client.search_experiments(max_results=MAX_RUNS)
    names = {experiment.experiment_id: experiment.name for experiment in experiments}
    ids = list(names) or ["0"]  # without experiments, MLflow would list the runs of all
    try:
        if METRIC.search(where):
            every = client.search_runs(ids, max_results=MAX_RUNS)
            where = grouped_filter(where, {name for run in every for name in run.data.metrics})
        conditions = [where] if where else []
        conditions += [f"tags.mlflow.parentRunId = '{parent}'"] if parent else []
        conditions += [f"tags.kind = '{kinds[0]}'"] if len(kinds) == 1 else []
        conditions += ["tags.kind != 'trial'"] if "trial" not in kinds else []
        runs = client.search_runs(
            ids, " and ".join(conditions), max_results=limit, order_by=[*order]
        )
    except MlflowException as error:
        raise Refusal(f"--where: {error_summary(error)}") from error
    wanted = [run for run in runs if run.data.tags.get("kind") in kinds]
    return [_record(run, names[run.info.experiment_id]) for run in wanted]


def _record(run: "Run", experiment: str) -> Record:
    info, data = run.info, run.data
    return Record(
        id=info.run_id,
        kind=data.tags["kind"],
        name=printable(info.run_name),
        experiment=printable(experiment),
        experiment_id=info.experiment_id,
        status=info.status.lower(),
        began=info.start_time / 1000,
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        folder=Path(printable(data.tags.get("folder", ""))),
        parent=data.tags.get("mlflow.parentRunId"),
        metrics={figure_name(name): value for name, value in data.metrics.items()},
        params=printable(dict(data.params)),
    )


def find_folder(text: str, store: Store) -> Path:
    """Return the folder of a run or sweep.

    `text` is a path, an id or its beginning, a name, or `best:METRIC@SWEEP`. A run whose folder is
    on another machine is downloaded.
    """
    if Path(text).is_dir():
        return Path(text)
    if text.startswith(BEST):
        record = _find_best(text, store)
    elif store.file is not None and not store.file.is_file():
        raise Refusal(
            f"{text}: no such folder; the folder of a run, or the name or id of a recorded one"
            " expected"
        )
    else:
        record = _find(text, list_records(store))
    return record.folder if _has_folder(record, store) else _download(record, store, text)


def _has_folder(record: Record, store: Store) -> bool:
    """Return whether the folder of a record exists and still belongs to this record, not to a later
    run.
    """
    if not record.folder.is_dir():
        return False
    sent = read_sent(record.folder)
    is_other = sent.get("id") not in (None, record.id)
    return not (is_other and sent.get("store") == without_secrets(store.uri))


def _download(record: Record, store: Store, text: str) -> Path:
    """Download MLflow's copy of a run into a folder. For a sweep, MLflow has only the results."""
    from distvae.data.folders import build_once, cache_folder

    problem = "holds a later run" if record.folder.is_dir() else "is not on this machine"
    message = f"{text}: its folder {record.folder} {problem}"
    if record.kind == "sweep":
        raise Refusal(
            f"{message}, and MLflow keeps only the results and the report of a sweep; the folder"
            " itself expected"
        )
    try:
        model = _latest_model(store.open_client(), record.id)
        folder = cache_folder() / "models" / str(model.model_id)
        build_once(folder, lambda part: _copy_model(model, store.uri, part))
    except Refusal as refusal:
        raise Refusal(f"{message}, and {refusal}") from refusal
    print(f"{message}; a copy from MLflow is in {folder}", file=sys.stderr)
    return folder


def _latest_model(client: "MlflowClient", run: str) -> "LoggedModel":
    """Return the latest completely logged model of a run."""
    models = [
        client.get_logged_model(o.model_id) for o in client.get_run(run).outputs.model_outputs
    ]
    complete = [model for model in models if model.status.name == "READY"]
    if not complete:
        raise Refusal(
            "no model of it is logged; 'distvae runs --send' where it was trained sends one if it"
            " waits there"
        )
    return max(complete, key=lambda model: model.creation_timestamp)


def _copy_model(model: "LoggedModel", uri: str, folder: Path) -> None:
    """Download the files of a logged model that a run folder needs, without the code beside it."""
    from mlflow.artifacts import download_artifacts

    source = f"{model.artifact_location}/data/run"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            data = Path(download_artifacts(source, dst_path=scratch, tracking_uri=uri))
        except Exception as error:  # storage libraries raise errors of many types
            raise Refusal(
                f"its model {model.model_id} cannot be fetched from MLflow: {error_summary(error)}"
            ) from error
        names = [path.name for path in data.iterdir() if path.is_file()]
        for needed in NEEDED:
            if needed not in names:
                raise Refusal(
                    f"its model {model.model_id} in MLflow has no {needed}; one that 'distvae"
                    " train' logged expected"
                )
        kept = [name for name in names if name in NEEDED + HISTORY or name.endswith(".safetensors")]
        for name in [*kept, *summaries(data)]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).replace(folder / name)


def _find(text: str, known: Sequence[Record], wanted: str = "record") -> Record:
    """Return the record with this id, beginning of an id, or name. `wanted` is the noun for
    messages.
    """
    found = [record for record in known if _has_id(record, text)]
    found = found or [record for record in known if record.name == text]
    # a replaced folder leaves its record behind
    found = [record for record in found if record.folder.is_dir()] or found
    if len({record.folder for record in found}) > 1:
        listed = ", ".join(f"{r.id[:SHORT]} ({r.kind} in {r.folder})" for r in found[:MAX_NAMED])
        raise Refusal(f"{text}: {len(found)} records have that name: {listed}; an id expected")
    if not found:
        names = {record.name for record in known if record.kind != "trial"}
        raise Refusal(
            f"{text}: no such folder, and no {wanted} of that name or id; {nearest(text, names)}"
        )
    return found[0]


def _has_id(record: Record, text: str) -> bool:
    return record.id == text or (len(text) >= MIN_PREFIX and record.id.startswith(text))


def _find_best(text: str, store: Store) -> Record:
    """Return the best trial for `best:METRIC@SWEEP`."""
    metric, at, name = text.removeprefix(BEST).partition("@")
    if not (metric and at and name):
        raise Refusal(f"{text}: best:METRIC@SWEEP expected, such as best:pesq_wb@speech")
    sweep = find_sweep(name, list_records(store, kinds=["sweep"]))
    metrics = sweep_metrics(sweep)
    if metric not in metrics:
        raise Refusal(
            f"{text}: {sweep.name} was not ranked by {metric}; {nearest(metric, metrics)}"
        )
    trials = rank_trials(store, sweep, metric, 1)
    if not trials:
        raise Refusal(f"{text}: {sweep.name} has no finished trial with {metric}")
    return trials[0]


def rank_trials(
    store: Store, sweep: Record, metric: str | None = None, limit: int = MAX_RUNS
) -> list[Record]:
    """Return the finished trials of a sweep that have a metric, best first.

    The default is the first ranking metric of the sweep.
    """
    metrics = sweep_metrics(sweep)
    metric = metric or next(iter(metrics))
    order = ordered_by(metric, metrics[metric] == "min")
    finished = "attributes.status = 'FINISHED'"
    trials = list_records(store, finished, ["trial"], sweep.id, order, limit)
    return [record for record in trials if metric in record.metrics]


def find_sweep(text: str, known: Sequence[Record]) -> Record:
    """Return the sweep with this name, id or folder."""
    sweeps = [record for record in known if record.kind == "sweep"]
    if Path(text).is_dir():
        for record in sweeps:
            if record.folder.resolve() == Path(text).resolve():
                return record
    return _find(text, sweeps, "sweep")


def sweep_metrics(sweep: Record) -> dict[str, str]:
    """Return the ranking metrics of a sweep, each with `min` or `max`."""
    prefix = "metric."
    metrics = {}
    for name, direction in sweep.params.items():
        if name.startswith(prefix):
            metrics[name.removeprefix(prefix)] = direction
    return metrics
