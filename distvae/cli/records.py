"""Commands for the records in MLflow: `runs` lists and sends them, `ui` and `serve` show them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import typer

from distvae.cli.options import RUNS, AsJson, command
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import finite, one_line
from distvae.system import HOST, is_free

if TYPE_CHECKING:
    from distvae.track.store import Kind, Record, Store

app = typer.Typer(rich_help_panel="Records in MLflow")
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")]

LONGEST = 100
"""Characters of a name; a longer name loses its middle."""
PORTS = 100
"""Number of ports searched for a free one."""
COMPARED = 8
"""Number of trials shown side by side, the best ones."""
SWEEPS = 3
"""Number of sweeps that are listed, the latest ones."""
START_SECONDS = 300
"""Seconds to wait for the server, which starts within about ten seconds."""


@dataclass(frozen=True)
class RunsOptions:
    """The options of `distvae runs`."""

    of: Annotated[str | None, typer.Option(metavar="SWEEP")] = None
    """List the trials of a sweep: a name, id or folder."""
    kind: Literal["run", "sweep", "trial"] | None = None
    """List only these; default: runs and sweeps."""
    where: Annotated[str, typer.Option(metavar="FILTER")] = ""
    """A filter of MLflow; for trials, for instance: --kind trial --where "metrics.hoyer > 0.4 and
    params.model.kind = 'sdm'".
    """
    sort: Annotated[str | None, typer.Option(metavar="METRIC")] = None
    """Sort by a metric: largest first, or best first if --of SWEEP ranks by it."""
    metric: list[str] | None = None
    """Show this metric; may be repeated. Default: the metrics that rank a sweep's trials; none of
    runs, whose bounds do not compare.
    """
    limit: Annotated[int, typer.Option(min=1)] = 30
    """Number of lines."""
    json: AsJson = False


@command(app, "runs --of speech-sweep --sort pesq_wb")
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...", help="With --send: what to send; default: all below runs/."
        ),
    ] = None,
    *,
    send: Annotated[
        bool,
        typer.Option("--send", help="Send what MLflow lacks, such as epochs while it was down."),
    ] = False,
    options: RunsOptions,
) -> None:
    """List runs and sweeps, or the trials of a sweep, from MLflow."""
    if send:
        raise typer.Exit(1 if send_folders(RUNS, folders or []) else 0)
    if folders:
        raise Refusal(f"{folders[0]}: without --send; --of SWEEP expected, or --send FOLDER")
    list_runs(RUNS, options)


def list_runs(root: Path, options: RunsOptions) -> None:
    """Print runs and sweeps, or the trials of one sweep, the latest or the best first."""
    from distvae.numerics.metrics import counted, listed
    from distvae.track.store import Store, find_sweep, list_records, ordered_by, sweep_metrics

    if options.of is not None and options.kind not in (None, "trial"):
        raise Refusal(f"--kind {options.kind}: --of lists the trials of a sweep; omit one")
    store = Store.find(root)
    sweeps = list_records(store, kinds=["sweep"])
    kinds: list[Kind] = [options.kind] if options.kind else ["run", "sweep"]
    parent, ranked = "", dict[str, str]()
    if options.of is not None:
        sweep = find_sweep(options.of, sweeps)
        kinds, parent, ranked = ["trial"], sweep.id, sweep_metrics(sweep)
    shown, order = options.metric or list(ranked), list[str]()
    if options.sort:
        shown = list(dict.fromkeys([options.sort, *shown]))
        order = ordered_by(options.sort, ascending=ranked.get(options.sort) == "min")
    found = list_records(store, options.where, kinds, parent, order, options.limit + 1)
    _refuse_unknown_metrics(options, found)
    if options.sort:
        found = [record for record in found if options.sort in record.metrics]
    if options.json:
        for record in found[: options.limit]:
            print(json.dumps(finite(asdict(record)), default=str))
        return
    _print_table(found[: options.limit], {sweep.id: sweep.name for sweep in sweeps}, shown)
    if len(found) > options.limit:
        print(f"the first {options.limit}; --limit shows more")
    if options.of is None and not found:
        others = [record.kind for record in list_records(store, options.where)]
        counts = [
            f"{counted(others.count(kind), kind)} (--kind {kind})" for kind in sorted({*others})
        ]
        if counts:
            print(f"none of these, but {listed(counts)}")


def _refuse_unknown_metrics(options: RunsOptions, found: "Sequence[Record]") -> None:
    """Refuse --metric and --sort if none of the listed runs has the metric."""
    known = {name for record in found for name in record.metrics}
    asked = [*(options.metric or []), *([options.sort] if options.sort else [])]
    for name in asked:
        if found and name not in known:
            hint = "these have no metrics; --of SWEEP lists its trials"
            if known:
                hint = nearest(name, known)
            raise Refusal(f"{name}: none of these has a metric of that name; {hint}")


def _print_table(
    found: "Sequence[Record]", sweeps: Mapping[str, str], metrics: Sequence[str]
) -> None:
    """Print a line for each record, however wide the terminal is; `sweeps` holds the names of
    sweeps by id.
    """
    names = ["id", "kind", "name", "of", "started", "time", "state", *metrics]
    rows = [names, *(_cells(record, sweeps, metrics) for record in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(names, row, widths, strict=True)
        print(
            "  ".join(
                cell.rjust(width) if name == "time" or name in metrics else cell.ljust(width)
                for name, cell, width in cells
            ).rstrip()
        )


def _cells(record: "Record", sweeps: Mapping[str, str], metrics: Sequence[str]) -> list[str]:
    from distvae.numerics.metrics import brief
    from distvae.track.store import SHORT
    from distvae.train.progress import format_duration

    parent = sweeps.get(record.parent or "", record.experiment)  # a trial belongs to its sweep
    begun = datetime.fromtimestamp(record.began).strftime("%Y-%m-%d %H:%M")
    duration = "" if record.seconds is None else format_duration(record.seconds)
    name, of = (one_line(text, LONGEST) for text in (record.name, parent))
    cells = [record.id[:SHORT], record.kind, name, of, begun, duration, record.status]
    values = record.metrics
    figures = [brief(values[name]) if name in values else "" for name in metrics]
    return [*cells, *figures]


def send_folders(root: Path, folders: Sequence[Path]) -> int:
    """Send the records below some folders, by default below `root`, to MLflow. Return the number
    of folders that failed.
    """
    from distvae.track.store import SHORT, Store, error_summary
    from distvae.track.tracker import Sender, recorded_folders

    for folder in folders:
        if not folder.is_dir():
            raise Refusal(
                f"{folder}: no such folder; the folder of a run or sweep, or one that contains"
                " some, expected"
            )
    store, failed, sent = Store.find(root), 0, 0
    for folder in (found for place in folders or [root] for found in recorded_folders(place)):
        sender = Sender(store, folder)
        try:
            if list(sender.send()):
                print(f"{folder}: sent, {sender.id[:SHORT]}")
                sent += 1
        except Exception as error:
            print(f"{folder}: {error_summary(error)}", file=sys.stderr)
            failed += 1
    if not sent and not failed:
        print("MLflow lacks nothing")
    return failed


@command(app, "ui")
def ui(port: Port = 5000) -> None:
    """Open MLflow with the runs and sweeps recorded here, on this machine alone."""
    open_ui(RUNS, port)


def open_ui(root: Path, port: int) -> None:
    """Run MLflow's server until Ctrl-C, and print where to look once it answers."""
    from distvae.track import Store, without_secrets
    from distvae.track.server import ended_by_itself, start_server

    store = Store.find(root)
    if store.uri.startswith("http"):
        print(_guide(store, without_secrets(store.uri)))
        return
    store.open_client()
    if not is_free(port):
        others = range(port + 1, port + PORTS)
        hint = next((f"; {other} is free" for other in others if is_free(other)), "")
        raise Refusal(f"--port {port}: in use{hint}")
    print("starting MLflow, which takes some ten seconds", flush=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _exit)
    server = start_server(store.uri, port, in_group=0)
    try:
        _wait_for_answer(server, port)
        print(_guide(store, f"http://{HOST}:{port}"))
        print("ready; Ctrl-C ends the server", flush=True)
        server.wait()
    finally:
        server.terminate()
        server.wait()
    raise ended_by_itself(server)


def _exit(number: int, frame: FrameType | None) -> None:
    """End after a signal, as Python does after Ctrl-C."""
    raise SystemExit(128 + number)


def _wait_for_answer(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Return once a server answers; refuse one that ends or does not answer in time."""
    from distvae.track.server import ended_by_itself, mlflow_answers

    until = time.monotonic() + START_SECONDS
    while not mlflow_answers(port):
        if server.poll() is not None:
            raise ended_by_itself(server)
        if time.monotonic() > until:
            raise Refusal(
                f"MLflow's server does not answer on {HOST}:{port} after {START_SECONDS} seconds"
            )
        time.sleep(0.2)


def _guide(store: "Store", address: str) -> str:
    """Return the addresses of MLflow's pages, and how to compare the trials of a sweep there."""
    from distvae.track.store import list_records, rank_trials
    from distvae.track.view import MAX_RUNS, TRAINING, put_view

    lines = [f"MLflow: {address}/#/experiments?{TRAINING}"]
    for sweep in list_records(store, kinds=["sweep"], limit=SWEEPS):
        trials = rank_trials(store, sweep, limit=MAX_RUNS)
        if len(trials) > 1:
            lines.append(f"{sweep.name}, charts: {address}/{put_view(store, sweep, trials)}")
            lines.append(f"{sweep.name}, side by side: {_side_by_side(address, trials[:COMPARED])}")
    lines.append(
        "Or: open an experiment, unfold a sweep by its +, tick trials in the first column, press"
        " 'Compare'."
    )
    return "\n".join(lines)


def _side_by_side(address: str, trials: "Sequence[Record]") -> str:
    """Return the page with the parameters and metrics of the best trials in columns."""
    from distvae.track.view import TRAINING

    # MLflow's page reads `runs` only where it stands first.
    runs = _quoted([trial.id for trial in trials])
    experiments = _quoted(sorted({trial.experiment_id for trial in trials}))
    return f"{address}/#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING}"


def _quoted(ids: Sequence[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))


@dataclass(frozen=True)
class ServeOptions:
    """The options of `distvae serve`."""

    storage: Annotated[str, typer.Option(envvar="DISTVAE_STORAGE")]
    """Storage that all machines share, for artifacts and a copy of the database."""
    port: Port = 5000
    database: Annotated[str | None, typer.Option(envvar="DISTVAE_DATABASE")] = None
    """A database such as postgresql://...; default ~/mlflow/mlflow.db."""
    beside: Annotated[str | None, typer.Option(metavar="HOST:PORT")] = None
    """Exit when nothing has listened there for a minute."""


@command(app, hidden=True)  # 'ray up' runs it
def serve(*, options: ServeOptions) -> None:
    """Serve MLflow on the head of a cluster, on this machine alone; 'ray up' starts it."""
    from distvae.track.server import serve as serve_mlflow

    beside = options.beside
    if beside is not None and not beside.rpartition(":")[2].isdecimal():
        raise Refusal(f"--beside: {beside}; an address such as 127.0.0.1:6379 expected")
    serve_mlflow(options.storage, options.port, options.database, beside)
