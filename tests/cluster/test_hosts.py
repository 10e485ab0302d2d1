"""A cluster from `ray up` to `ray down` on hosts of their own: nothing of it shares more than a
network and one folder.

The tests are one story and run in the order they stand in; the long ones, in which hosts are lost,
can be left out.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from distvae.train.run_folder import read_epochs, read_records
from tests.cluster.hosts import ROOT, SSH, Host, lacking, left, wait_for
from tests.cluster.lab import MEMBERS, SHARED, Lab, download, lab
from tests.ports import free_port
from tests.train.commands import PLAIN, command

pytestmark = pytest.mark.cluster

QUICK = {"train.epochs": 12, "data.rows": 200, "estep.sweeps": 2}
SPACE = {
    "about": "Bars, in no time",
    "base": "bars",
    "fixed": QUICK,
    "metrics": {"bound": "max"},
    "search": "random",
    "trials": 6,
    "axes": [{"key": "train.rate", "float": [1e-3, 2e-2], "log": True}],
}
TRIALS = 9
"""Enough that a host whose first process is late has some of them too."""
EPOCHS = 24
RECIPE = [
    *("bars", "data.rows=4000", f"train.epochs={EPOCHS}", "train.batch=512"),
    # With these settings other orders of addition change little.
    *("train.rate=0.002", "train.schedule=constant"),
]
RECOVERY = 90.0
"""Seconds in which training begins again after a host is lost, and then goes on; what it takes is
printed.
"""


@pytest.fixture(scope="module")
def lent(request: pytest.FixtureRequest) -> bool:
    """Whether hosts see the packages of the tests instead of installing their own: unless there are
    long tests.
    """
    return not any(item.get_closest_marker("long") for item in request.session.items)


@pytest.fixture(scope="module")
def cluster(lent: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if why := lacking():
        pytest.skip(why)
    folder = os.environ.get("DISTVAE_WHEELS")
    wheels = Path(folder) if folder else download(tmp_path_factory.mktemp("wheels"), lent)
    with lab(tmp_path_factory.mktemp("hosts"), wheels) as made:
        made.shared_file("tiny.yaml").write_text(yaml.safe_dump(SPACE))
        yield made
    assert left() == ""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """The training that nothing happens to, from the moment that this is asked for; called, it
    waits for its end.
    """
    folder = tmp_path_factory.mktemp("alone") / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command(PLAIN, RECIPE, folder), env=environment) as alone:

        def end() -> Path:
            assert alone.wait(300) == 0
            return folder

        try:
            yield end
        finally:
            alone.terminate()


def trials(cluster: Lab, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        cluster.shared_file(f"runs/{name}/results.json").read_text()
    )["trials"]
    return found


def epochs(folder: Path) -> int:
    return len(read_epochs(folder)) if (folder / "epochs.jsonl").exists() else 0


@contextmanager
def forwarded(cluster: Lab, port: int) -> Iterator[int]:
    """A port of the head's loopback, brought here as `ray dashboard` and `ray attach -p` do."""
    head = cluster.hosts["head"]
    local_port = free_port()
    ends = f"127.0.0.1:{local_port}:127.0.0.1:{port}"
    words = ["ssh", "-N", "-i", str(head.folder / "key"), *SSH, "-L", ends]
    with subprocess.Popen([*words, f"root@{head.address}"]) as tunnel:
        try:
            wait_for(lambda: _listens("127.0.0.1", local_port), 30, "no tunnel")
            yield local_port
        finally:
            tunnel.terminate()


@contextmanager
def recorded(cluster: Lab, experiment: str) -> Iterator[tuple[Any, list[Any]]]:
    """MLflow on the head, and its runs of an experiment."""
    from mlflow import MlflowClient

    with forwarded(cluster, 5000) as port:
        client = MlflowClient(f"http://127.0.0.1:{port}")
        known = {found.name: found.experiment_id for found in client.search_experiments()}
        yield client, list(client.search_runs([known[experiment]]))


def _listens(host: str, port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(3)
        return tried.connect_ex((host, port)) == 0


def test_ray_up_makes_a_cluster_that_the_doctor_finds_well(cluster: Lab, lent: bool) -> None:
    words = [*PLAIN, "doctor", "--file", str(cluster.file), "--json"]
    done = subprocess.run(
        words, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cluster.up_from_nothing(lent)
    cluster.whole()
    head = cluster.hosts["head"]
    wait_for(
        lambda: head.ssh("curl -sf http://127.0.0.1:5000/health").returncode == 0, 120, "no MLflow"
    )
    done = head.ssh("distvae doctor --address auto --storage $DISTVAE_STORAGE --json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    states = {line["what"]: line["state"] for line in lines}
    assert states == dict.fromkeys(("token", "versions", "GPUs", "copies", "storage"), "ok")


def test_a_sweep_runs_on_all_hosts_and_mlflow_has_it_through_ssh_alone(cluster: Lab) -> None:
    with ThreadPoolExecutor() as both:
        lacks = both.submit(cluster.submit, "sweep.py", "tune_spaces/mine.yaml")
        done = cluster.submit("sweep.py", f"{SHARED}/tiny.yaml", "--trials", str(TRIALS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert lacks.result().returncode == 1
    assert "tune_spaces/mine.yaml: not on the head" in lacks.result().stdout
    found = trials(cluster, "tiny")
    assert [trial["state"] for trial in found] == ["finished"] * TRIALS
    assert {trial["node"] for trial in found} == {cluster.hosts[name].address for name in MEMBERS}
    with recorded(cluster, "tiny") as (client, runs):
        assert len(runs) == TRIALS + 1
        assert {run.info.status for run in runs} == {"FINISHED"}
        sweep = next(run for run in runs if run.data.tags["kind"] == "sweep")
        assert client.download_artifacts(sweep.info.run_id, "report/report.html")


@pytest.mark.long
def test_words_arrive_whole_by_ray_job_submit_and_its_exit_code_says_what_happened(
    cluster: Lab,
) -> None:
    cluster.shared_file("with a blank.yaml").write_text(yaml.safe_dump(SPACE | {"trials": 1}))
    split = ("--out", f"{SHARED}/my runs", "--trials", "1")
    done = cluster.submit("sweep.py", f"{SHARED}/tiny.yaml", *split)
    assert done.returncode == 1
    assert "'ray submit' splits it" in done.stdout
    with forwarded(cluster, 8265) as port:
        at = ("job", "submit", "--address", f"http://127.0.0.1:{port}", "--working-dir", ".", "--")
        good = cluster.ray(
            *at, "python", "cluster/sweep.py", f"{SHARED}/with a blank.yaml", "--concurrent", "1"
        )
        bad = cluster.ray(*at, "python", "cluster/sweep.py", f"{SHARED}/no such.yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    assert [trial["state"] for trial in trials(cluster, "with a blank")] == ["finished"]
    assert bad.returncode == 1
    assert "no such.yaml: not on the head" in bad.stdout + bad.stderr


@pytest.mark.long
def test_a_lost_host_is_made_up_for_in_mid_epoch(
    cluster: Lab, undisturbed: Callable[[], Path]
) -> None:
    """The lost host had a worker, and snapshots of the second worker. The bound equals the bound of
    an undisturbed training.
    """
    folder, said = cluster.shared_file("runs/bars"), list[subprocess.CompletedProcess[str]]()
    training = threading.Thread(
        target=lambda: said.append(
            cluster.submit("train.py", *RECIPE, "--workers", "2", "--no-evaluate", timeout=400)
        )
    )
    training.start()
    wait_for(lambda: epochs(folder) >= 6 or not training.is_alive(), 180, "no epochs")
    victim = next(name for name in ("two", "one") if _trains(cluster.hosts[name]))
    committed = json.loads((folder / "last.json").read_text())["facts"]["position"]["epoch"]
    cluster.hosts[victim].cut_off()
    cluster.hosts[victim].power_off()
    lost, at = time.monotonic(), epochs(folder)
    began = len(read_records(folder, "events.jsonl"))
    wait_for(
        lambda: len(read_records(folder, "events.jsonl")) > began,
        RECOVERY,
        "training does not begin again",
    )
    again = read_records(folder, "events.jsonl")[began]["epoch"]
    wait_for(lambda: epochs(folder) > min(at, again + 1), RECOVERY, "training does not go on")
    print(
        f"host {victim} lost at epoch {at}, {time.monotonic() - lost:.1f} s until training went on"
        f" from {again}"
    )
    assert committed <= again <= at
    training.join()
    assert said[0].returncode == 0, said[0].stdout + said[0].stderr
    cluster.hosts[victim].start()
    bounds = [
        [epoch["val_bound"] for epoch in read_epochs(place)] for place in (folder, undisturbed())
    ]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-3, abs=1e-3)
    with recorded(cluster, "bars") as (client, (run,)):
        history = client.get_metric_history(run.info.run_id, "bound/val_bound")
    assert [metric.step for metric in history] == [*range(1, EPOCHS + 1)]


@pytest.mark.long
def test_a_host_that_comes_back_is_used_again(cluster: Lab) -> None:
    """By a training that needs the one processor of every host."""
    cluster.whole()
    words = [
        *RECIPE,
        "train.epochs=3",
        "--workers",
        "3",
        "--no-evaluate",
        "--storage",
        f"{SHARED}/runs/again",
    ]
    with ThreadPoolExecutor() as pool:
        training = pool.submit(cluster.submit, "train.py", *words)
        wait_for(
            lambda: all(_trains(cluster.hosts[name]) for name in MEMBERS),
            180,
            "not all hosts train",
            1,
        )
        assert training.result().returncode == 0, (
            training.result().stdout + training.result().stderr
        )
    assert epochs(cluster.shared_file("runs/again/bars")) == 3


def _trains(host: Host) -> bool:
    return "RayTrainWorker" in host.does("ps axww -o args")


STRANGER = """
import os, socket, sys, urllib.request
head = sys.argv[1]
def tried(what):
    try:
        return repr(what())
    except BaseException as error:
        return f"refused: {type(error).__name__}: {error}"
def joined():
    import ray
    return ray.init(f"{head}:6379", logging_level=50)
def asked():
    from ray.job_submission import JobSubmissionClient
    return JobSubmissionClient(f"http://{head}:8265").submit_job(entrypoint="id")
def read(port):
    return urllib.request.urlopen(f"http://{head}:{port}/", timeout=5).read()
print("join", tried(joined))
print("job", tried(asked))
print("dashboard", tried(lambda: read(8265)))
print("MLflow", tried(lambda: read(5000)))
"""


def test_a_neighbour_without_the_token_can_do_nothing(cluster: Lab, tmp_path: Path) -> None:
    head, other = cluster.hosts["head"], cluster.hosts["other"]
    kept = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }

    def tried(auth: dict[str, str]) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", other.space, sys.executable, "-c", STRANGER, head.address],
            env=kept | auth,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return done.stdout + done.stderr

    tokens = {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    with ThreadPoolExecutor() as both:
        answers = list(both.map(tried, tokens))
    for said in answers:
        refusals = dict(
            line.split(" ", 1) for line in said.splitlines() if " refused: " in f" {line}"
        )
        assert refusals.keys() == {"join", "job", "dashboard", "MLflow"}, said
        for what in ("dashboard", "MLflow"):
            assert "Connection refused" in refusals[what]


def test_the_token_and_the_key_are_written_nowhere(cluster: Lab) -> None:
    token = (cluster.home / ".ray" / "distvae" / "auth_token").read_text()
    key = (cluster.hosts["head"].folder / "key").read_text().splitlines()[2]
    places = "/tmp/ray ~/mlflow /mnt/shared/runs /mnt/shared/mlartifacts ~/.bashrc ~/.distvae_env"
    for name in MEMBERS:
        host = cluster.hosts[name]
        assert host.ssh(f"grep -rlsF -e {token} -e {key} {places}").stdout.strip() == ""
        assert token not in host.does("ps axww -o args")


@pytest.mark.long
def test_a_sweep_goes_on_by_the_same_command_after_the_head_was_switched_off(cluster: Lab) -> None:
    slow = SPACE | {"trials": 6, "fixed": QUICK | {"train.epochs": 40, "data.rows": 2000}}
    cluster.shared_file("slow.yaml").write_text(yaml.safe_dump(slow))
    folder, head = cluster.shared_file("runs/slow"), cluster.hosts["head"]

    def ended() -> dict[Path, str]:
        """Trials that were judged, with the history of their training, seconds and all."""
        judged = [path.parents[2] for path in folder.glob("trials/*/evaluation/val/summary.json")]
        return {trial: (trial / "epochs.jsonl").read_text() for trial in judged}

    sweep = threading.Thread(target=lambda: cluster.submit("sweep.py", f"{SHARED}/slow.yaml"))
    sweep.start()
    wait_for(lambda: len(ended()) >= 2, 180, "no trial ends")
    again = cluster.ray("up", "-y", str(cluster.file))
    assert again.returncode != 0
    assert "runs on this head" in again.stdout + again.stderr
    head.power_off()
    sweep.join()
    before = ended()
    assert len(before) < 6
    head.start()
    cluster.up()
    cluster.whole()
    done = cluster.submit("sweep.py", f"{SHARED}/slow.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [trial["state"] for trial in trials(cluster, "slow")] == ["finished"] * 6
    assert {trial: history for trial, history in ended().items() if trial in before} == before


def test_ray_down_leaves_nothing(cluster: Lab) -> None:
    done = cluster.ray("down", "-y", str(cluster.file))
    assert done.returncode == 0, done.stdout + done.stderr
    ours = re.compile(r"raylet|gcs_server|ray::|distvae|mlflow")

    def running(name: str) -> list[str]:
        return [
            line
            for line in cluster.hosts[name].does("ps axww -o args").splitlines()
            if ours.search(line)
        ]

    until = time.monotonic() + 240
    while (
        remaining := [line for name in MEMBERS for line in running(name)]
    ) and time.monotonic() < until:
        time.sleep(5)
    assert remaining == []
