"""`distvae ui`: open MLflow in a browser, on this machine alone."""

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import quote

from distvae.files.refusal import Refusal
from distvae.system.loopback import HOST, is_free

if TYPE_CHECKING:
    from distvae.track import Store
    from distvae.track.records import Record

PORTS = 100
"""Number of ports searched for a free one."""
COMPARED = 8
"""Number of trials shown side by side, the best ones."""
SWEEPS = 3
"""Number of sweeps that are listed, the latest ones."""
START_SECONDS = 300
"""Time for the server to start, which takes some ten seconds."""


def open_ui(root: Path, port: int) -> None:
    """Run MLflow's server until Ctrl-C, and print where to look once it answers."""
    from distvae.track import Store, without_secrets
    from distvae.track.server import ended_by_itself, start_server

    store = Store.find(root)
    if store.uri.startswith("http"):
        print(_guide(store, without_secrets(store.uri)))
        return
    store.open_client()
    _refuse_taken(port)
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
    """Return the addresses of the pages, and how to compare the trials of a sweep there."""
    from distvae.track.records import list_records, rank_trials
    from distvae.track.view import TRAINING

    known = list_records(store)
    lines = [f"MLflow: {address}/#/experiments?{TRAINING}"]
    sweeps = [record for record in known if record.kind == "sweep"]
    for sweep in sweeps[:SWEEPS]:
        trials = rank_trials(sweep, known)
        if len(trials) > 1:
            lines.append(f"{sweep.name}, charts: {address}/{_charts(store, sweep)}")
            lines.append(f"{sweep.name}, side by side: {_side_by_side(address, trials)}")
    lines.append(
        "Or: open an experiment, unfold a sweep by its +, tick trials in the first column, press"
        " 'Compare'."
    )
    return "\n".join(lines)


def _charts(store: "Store", sweep: "Record") -> str:
    """Return the page with the charts of a sweep: its saved view, or one for each metric."""
    from distvae.track.records import sweep_metrics
    from distvae.track.view import TRAINING, has_view, view_path

    if has_view(store, sweep.experiment_id, sweep.id):
        return view_path(sweep.experiment_id, sweep.id)

    metric, direction = next(iter(sweep_metrics(sweep).items()))
    view = {
        "searchFilter": f"tags.mlflow.parentRunId = '{sweep.id}'",
        "compareRunsMode": "CHART",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": str(direction == "min").lower(),
    }
    options = "&".join(f"{name}={quote(value)}" for name, value in view.items())
    return f"#/experiments/{sweep.experiment_id}/runs?{TRAINING}&{options}"


def _side_by_side(address: str, trials: "Sequence[Record]") -> str:
    """Return the page with the parameters and metrics of the best trials in columns."""
    from distvae.track.view import TRAINING

    # MLflow's page reads `runs` only where it stands first.
    runs = _quoted([trial.id for trial in trials[:COMPARED]])
    experiments = _quoted(sorted({trial.experiment_id for trial in trials}))
    return f"{address}/#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING}"


def _quoted(ids: Sequence[str]) -> str:
    return quote(json.dumps(ids, separators=(",", ":")))


def _refuse_taken(port: int) -> None:
    if is_free(port):
        return
    for other in range(port + 1, port + PORTS):
        if is_free(other):
            raise Refusal(f"--port {port}: in use; {other} is free")
    raise Refusal(f"--port {port}: in use")
