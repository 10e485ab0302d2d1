"""Looking at what MLflow has - as a table, or in a browser - and sending it what it lacks."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from distvae.files.refusal import Refusal, nearest
from distvae.track import Store, without_secrets
from distvae.track.journal import unsent_folders
from distvae.track.records import (
    SHORT,
    Kind,
    Record,
    find_sweep,
    list_records,
    rank_trials,
    sweep_metrics,
)
from distvae.track.sender import Sender
from distvae.track.store import QUIET, error_summary
from distvae.train.progress import format_duration

HOST = "127.0.0.1"
PORTS = 100  # ports looked through for a free one
COMPARED = 8  # trials in columns, the best
SWEEPS = 3  # so many, the latest, are named when MLflow opens
WIDE = 200
TRAINING = "workflowType=machine_learning"
"""Which of its two faces MLflow shows."""


def runs(
    root: Path,
    of: str | None,
    kinds: Sequence[Kind],
    where: str,
    sort: str | None,
    ascending: bool,
    metrics: Sequence[str],
    limit: int,
    as_json: bool,
) -> None:
    """Print runs and sweeps, or the trials of one sweep, the latest or the best first."""
    store = Store.find(root)
    found, sweeps, shown = (
        list_records(store, where),
        list_records(store, kinds=["sweep"]),
        list(metrics),
    )
    if of is not None:
        sweep = find_sweep(of, sweeps)
        found = [record for record in found if record.parent == sweep.id]
        shown = shown or list(sweep_metrics(sweep))
    else:
        found = [record for record in found if record.kind in kinds]
        shown = shown or ["val_bound"]
    known = {name for record in found for name in record.metrics}
    for name in dict.fromkeys([*metrics, *([sort] if sort else [])]):
        if found and name not in known:
            hint = (
                nearest(name, known)
                if known
                else "these have no metrics; --of SWEEP lists its trials"
            )
            raise Refusal(f"{name}: none of these has a metric of that name; {hint}")
    if sort:
        shown = list(dict.fromkeys([sort, *shown]))
        found = [record for record in found if sort in record.metrics]
        found.sort(key=lambda record: record.metrics[sort], reverse=not ascending)
    _print(found[:limit], {sweep.id: sweep.name for sweep in sweeps}, shown, as_json)
    if len(found) > limit and not as_json:
        print(f"{len(found) - limit} more; --limit shows them")


def _print(
    found: Sequence[Record], sweeps: Mapping[str, str], metrics: Sequence[str], as_json: bool
) -> None:
    """Trials are told to be of their sweep, whose name is here by its id; all else of its
    experiment.
    """
    if as_json:
        for record in found:
            print(json.dumps(asdict(record), default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("id", "kind", "name", "of", "begun", "time", "state", *metrics):
        table.add_column(
            name, justify="right" if name in metrics or name == "time" else "left", no_wrap=True
        )
    for record in found:
        begun = datetime.fromtimestamp(record.began).strftime("%Y-%m-%d %H:%M")
        time_taken = "" if record.seconds is None else format_duration(record.seconds)
        figures = [
            f"{record.metrics[name]:.3f}" if name in record.metrics else "" for name in metrics
        ]
        of = sweeps.get(record.parent or "", record.experiment)
        about = (record.id[:SHORT], record.kind, record.name, of, begun, time_taken, record.status)
        table.add_row(*about, *figures)
    Console(width=WIDE).print(table)


def sync(root: Path, folders: Sequence[Path]) -> int:
    """Send MLflow what it did not take when it happened; how many folders it still lacks something
    of.
    """
    for folder in folders:
        if not folder.is_dir():
            raise Refusal(
                f"{folder}: no such folder; that of a run or sweep, or one with some below it,"
                " expected"
            )
    store, failed = Store.find(root), set[Path]()

    def lacking(folder: Path, error: Exception) -> None:
        print(f"{folder}: {error_summary(error)}", file=sys.stderr)
        failed.add(folder)

    waiting = [folder for place in folders or [root] for folder in unsent_folders(place, lacking)]
    for folder in waiting:
        try:
            record = Sender(store, folder).send()
            print(f"{folder}: sent, {record[:SHORT]}")
        except Exception as error:
            lacking(folder, error)
    if not waiting and not failed:
        print("nothing is waiting to be sent")
    return len(failed)


def ui(root: Path, port: int) -> None:
    """Say what to click, and become MLflow's server, for this machine alone, until Ctrl-C."""
    store = Store.find(root)
    if store.uri.startswith("http"):
        print(_guide(store, without_secrets(store.uri)))
        return
    store.open_client()
    _refuse_taken(port)
    print(
        _guide(store, f"http://{HOST}:{port}"),
        "It is there in some ten seconds; Ctrl-C ends it.",
        sep="\n",
        flush=True,
    )
    server = ["-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = ["--uvicorn-opts", "--log-level warning"]
    where = {
        "MLFLOW_BACKEND_STORE_URI": store.uri
    }  # not on the command line, which everybody can read
    os.environ |= QUIET | where | {"PYTHONWARNINGS": "ignore"}
    os.execv(sys.executable, [sys.executable, *server, *quiet])


def _guide(store: Store, address: str) -> str:
    """Where the pages are, and how the trials of a sweep are compared there."""
    known = list_records(store)
    lines = [f"MLflow: {address}/#/experiments?{TRAINING}"]
    for sweep in [record for record in known if record.kind == "sweep"][:SWEEPS]:
        trials = rank_trials(sweep, known)
        if len(trials) > 1:
            lines += [f"{sweep.name}, charts: {_charts(address, sweep)}"]
            lines += [f"{sweep.name}, side by side: {_side_by_side(address, trials)}"]
    lines += [
        "Or: open an experiment, unfold a sweep by its +, tick trials in the first column, press"
        " 'Compare'."
    ]
    return "\n".join(lines)


def _charts(address: str, sweep: Record) -> str:
    """MLflow's page with a chart for each metric of the trials of a sweep, the best first."""
    metric, direction = next(iter(sweep_metrics(sweep).items()))
    wanted = {"searchFilter": f"tags.mlflow.parentRunId = '{sweep.id}'", "compareRunsMode": "CHART"}
    wanted |= {"orderByKey": f"metrics.`{metric}`", "orderByAsc": str(direction == "min").lower()}
    options = "&".join(f"{name}={quote(value)}" for name, value in wanted.items())
    return f"{address}/#/experiments/{sweep.experiment_id}/runs?{TRAINING}&{options}"


def _side_by_side(address: str, trials: Sequence[Record]) -> str:
    """MLflow's page with the parameters and metrics of runs in columns."""
    runs = json.dumps([trial.id for trial in trials[:COMPARED]], separators=(",", ":"))
    experiments = json.dumps(
        sorted({trial.experiment_id for trial in trials}), separators=(",", ":")
    )
    return (
        f"{address}/#/compare-runs?{TRAINING}&runs={quote(runs)}&experiments={quote(experiments)}"
    )


def _refuse_taken(port: int) -> None:
    if _free(port):
        return
    other = next((other for other in range(port + 1, port + PORTS) if _free(other)), None)
    raise Refusal(f"--port {port}: in use" + (f"; {other} is free" if other else ""))


def _free(port: int) -> bool:
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
        return True
