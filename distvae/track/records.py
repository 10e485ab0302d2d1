"""List the records of runs and sweeps, and find folders by id, name, or `best:METRIC@SWEEP`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import printable
from distvae.track.naming import METRIC, figure_name, grouped_filter
from distvae.track.record import read_sent
from distvae.track.store import Store, error_summary, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList

Kind = Literal["run", "sweep", "trial"]
BEST = "best:"
SHORT = 8  # characters of an id that are shown
MIN_PREFIX = 4  # the shortest usable beginning of an id, in characters
MAX_NAMED = 5  # records that a message about an ambiguous name lists


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


def list_records(
    store: Store, where: str = "", kinds: Sequence[Kind] = ("run", "sweep", "trial")
) -> list[Record]:
    """Return all records, the latest first. `where` is a filter in MLflow's syntax."""
    from mlflow.exceptions import MlflowException

    client = store.open_client()
    experiments = {}
    for experiment in _all_pages(client.search_experiments):
        experiments[experiment.experiment_id] = experiment.name
    try:
        runs = _search(client, list(experiments), where) if experiments else []
    except MlflowException as error:
        raise Refusal(f"--where: {error_summary(error)}") from error
    found = []
    for run in runs:
        if run.data.tags.get("kind") in kinds:
            found.append(_record(run, experiments[run.info.experiment_id]))
    return sorted(found, key=lambda record: record.began, reverse=True)


def _search(client: "MlflowClient", experiments: list[str], where: str) -> "list[Run]":
    """Return the runs that a filter matches, whether or not their metrics have groups."""
    found = _all_pages(client.search_runs, experiments, where)
    if METRIC.search(where):
        every = _all_pages(client.search_runs, experiments)
        metrics = {name for run in every for name in run.data.metrics}
        found += _all_pages(client.search_runs, experiments, grouped_filter(where, metrics))
    return list({run.info.run_id: run for run in found}.values())


def _all_pages(search: "Callable[..., PagedList[Run]]", *arguments: object) -> "list[Run]":
    found, token = [], None
    while True:
        page = search(*arguments, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


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
    from distvae.track.download import download_run

    problem = "holds a later run" if record.folder.is_dir() else "is not on this machine"
    message = f"{text}: its folder {record.folder} {problem}"
    if record.kind == "sweep":
        raise Refusal(
            f"{message}, and MLflow keeps only the results and the report of a sweep; the folder"
            " itself expected"
        )
    try:
        folder = download_run(record.id, store)
    except Refusal as refusal:
        raise Refusal(f"{message}, and {refusal}") from refusal
    print(f"{message}; a copy from MLflow is in {folder}", file=sys.stderr)
    return folder


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
    known = list_records(store)
    sweep = find_sweep(name, known)
    metrics = sweep_metrics(sweep)
    if metric not in metrics:
        raise Refusal(
            f"{text}: {sweep.name} was not ranked by {metric}; {nearest(metric, metrics)}"
        )
    trials = rank_trials(sweep, known, metric)
    if not trials:
        raise Refusal(f"{text}: {sweep.name} has no finished trial with {metric}")
    return trials[0]


def rank_trials(sweep: Record, known: Sequence[Record], metric: str | None = None) -> list[Record]:
    """Return the finished trials of a sweep that have a metric, best first.

    The default is the first ranking metric of the sweep.
    """
    metrics = sweep_metrics(sweep)
    metric = metric or next(iter(metrics))
    finished = [r for r in known if r.parent == sweep.id and r.status == "finished"]
    trials = [record for record in finished if metric in record.metrics]
    larger_is_better = metrics[metric] == "max"
    return sorted(trials, key=lambda record: record.metrics[metric], reverse=larger_is_better)


def find_sweep(text: str, known: Sequence[Record]) -> Record:
    """Return the sweep with this name, id or folder."""
    sweeps = [record for record in known if record.kind == "sweep"]
    if Path(text).is_dir():
        for record in sweeps:
            if record.folder.resolve() == Path(text).resolve():
                return record
    if not any(_has_id(record, text) or record.name == text for record in sweeps):
        for other in known:
            if other.name == text:
                raise Refusal(f"{text}: a {other.kind}, not a sweep; the name of a sweep expected")
    return _find(text, sweeps, "sweep")


def sweep_metrics(sweep: Record) -> dict[str, str]:
    """Return the ranking metrics of a sweep, each with `min` or `max`."""
    prefix = "metric."
    metrics = {}
    for name, direction in sweep.params.items():
        if name.startswith(prefix):
            metrics[name.removeprefix(prefix)] = direction
    return metrics
