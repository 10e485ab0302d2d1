"""Runs and sweeps by what MLflow knows of them: lists, and folders by id, name, or
`best:METRIC@SWEEP`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distvae.files.refusal import Refusal, nearest
from distvae.track.journal import Journal
from distvae.track.store import Store, error_summary, without_secrets

Kind = Literal["run", "sweep", "trial"]
BEST = "best:"
SHORT = 8  # characters of an id that are shown
LEAST = 4  # and that may stand for it
AMBIGUOUS = 5  # of those an ambiguous name may mean, so many are named


@dataclass(frozen=True)
class Record:
    """What MLflow knows of a run, sweep or trial."""

    id: str
    kind: Kind
    name: str
    experiment: str
    experiment_id: str
    status: str
    began: float
    """Seconds since 1970."""
    seconds: float | None
    """None: it goes on, or nobody could say how it ended."""
    folder: Path
    parent: str | None
    metrics: dict[str, float]
    params: dict[str, str]


def list_records(
    store: Store, where: str = "", kinds: Sequence[Kind] = ("run", "sweep", "trial")
) -> list[Record]:
    """Everything there is, the latest first; `where` is a filter in MLflow's own words."""
    from mlflow.exceptions import MlflowException

    client = store.open_client()
    names = {found.experiment_id: found.name for found in _all(client.search_experiments)}
    try:
        found = _all(client.search_runs, list(names), where) if names else []
    except MlflowException as error:
        raise Refusal(f"--where: {error_summary(error)}") from error
    known = [
        _record(run, names[run.info.experiment_id])
        for run in found
        if run.data.tags.get("kind") in kinds
    ]
    return sorted(known, key=lambda record: record.began, reverse=True)


def _all(search: Any, *what: Any) -> list[Any]:
    found, page = [], None
    while True:
        part = search(*what, page_token=page)
        found += part
        if not (page := part.token):
            return found


def _record(run: Any, experiment: str) -> Record:
    info, data = run.info, run.data
    return Record(
        id=info.run_id,
        kind=data.tags["kind"],
        name=info.run_name,
        experiment=experiment,
        experiment_id=info.experiment_id,
        status=info.status.lower(),
        began=info.start_time / 1000,
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        folder=Path(data.tags.get("folder", "")),
        parent=data.tags.get("mlflow.parentRunId"),
        metrics=dict(data.metrics),
        params=dict(data.params),
    )


def find_folder(text: str, store: Store) -> Path:
    """The folder of a run or sweep: itself, or by its id, how that begins, its name, or as the best
    of a sweep.

    A run whose folder is elsewhere is fetched.
    """
    if Path(text).is_dir():
        return Path(text)
    if not text.startswith(BEST) and store.file is not None and not store.file.is_file():
        raise Refusal(
            f"{text}: no such folder; the folder of a run, or the name or id of a recorded one"
            " expected"
        )
    found = _best(text, store) if text.startswith(BEST) else _find(text, list_records(store))
    return found.folder if _holds(found.folder, found, store) else _fetched(found, store, text)


def _holds(folder: Path, record: Record, store: Store) -> bool:
    """Whether a folder is here, and is not that of a later run which this store knows by another
    record.
    """
    head = Journal(folder).head() if folder.is_dir() else {}
    later = head.get("store") == without_secrets(store.uri) and head.get("id") not in (
        None,
        record.id,
    )
    return folder.is_dir() and not later


def _fetched(found: Record, store: Store, text: str) -> Path:
    """What MLflow has of a run as a folder of this machine; of a sweep it has no more than the
    results.
    """
    from distvae.track.download import download_run

    there = "holds a later run" if found.folder.is_dir() else "is not on this machine"
    gone = f"{text}: its folder {found.folder} {there}"
    if found.kind == "sweep":
        raise Refusal(
            f"{gone}, and of a sweep MLflow keeps results and the report alone; the folder itself"
            " expected"
        )
    try:
        folder = download_run(found.id, store)
    except Refusal as refusal:
        raise Refusal(f"{gone}, and {refusal}") from refusal
    print(f"{gone}; what MLflow has of it is in {folder}", file=sys.stderr)
    return folder


def _find(text: str, known: Sequence[Record]) -> Record:
    fitting = [r for r in known if r.id == text or (len(text) >= LEAST and r.id.startswith(text))]
    fitting = fitting or [record for record in known if record.name == text]
    fitting = [
        record for record in fitting if record.folder.is_dir()
    ] or fitting  # a folder replaced leaves its record
    folders = {record.folder for record in fitting}
    if len(folders) > 1:
        told = ", ".join(f"{r.id[:SHORT]} ({r.kind} in {r.folder})" for r in fitting[:AMBIGUOUS])
        raise Refusal(f"{text}: {len(fitting)} records have that name: {told}; an id expected")
    if not fitting:
        names = {record.name for record in known if record.kind != "trial"}
        raise Refusal(
            f"{text}: no such folder, and no record of that name or id; {nearest(text, names)}"
        )
    return fitting[0]


def _best(text: str, store: Store) -> Record:
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
    if not (trials := rank_trials(sweep, known, metric)):
        raise Refusal(f"{text}: {sweep.name} has no trial with {metric}")
    return trials[0]


def rank_trials(sweep: Record, known: Sequence[Record], metric: str | None = None) -> list[Record]:
    """The trials of a sweep that have a metric, by default the one that it was ranked by first."""
    metric = metric or next(iter(sweep_metrics(sweep)))
    trials = [record for record in known if record.parent == sweep.id and metric in record.metrics]
    return sorted(
        trials,
        key=lambda record: record.metrics[metric],
        reverse=sweep_metrics(sweep)[metric] == "max",
    )


def find_sweep(text: str, known: Sequence[Record]) -> Record:
    """The sweep of a name, an id or a folder."""
    sweeps = [record for record in known if record.kind == "sweep"]
    here = [
        record
        for record in sweeps
        if Path(text).is_dir() and record.folder == Path(text).absolute()
    ]
    return here[0] if here else _find(text, sweeps)


def sweep_metrics(sweep: Record) -> dict[str, str]:
    """What a sweep was ranked by."""
    return {
        name.removeprefix("metric."): v
        for name, v in sweep.params.items()
        if name.startswith("metric.")
    }
