"""Trials of several workers, on machines of a cluster, with parts of a GPU."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from distvae.files.refusal import Refusal
from distvae.machines.session import ray_session
from distvae.machines.worker import REPORT_VARIABLE
from distvae.train.run_folder import read_epochs
from distvae.tune.resources import TrialResources, wait_for_capacity
from distvae.tune.sweep import limit_concurrency, open_data, prepare_space
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.processes import started
from tests.ray_cluster import cluster
from tests.train.commands import PACE

TREE = {
    "base": "bars",
    "fixed": {"train.epochs": 12, "data.rows": 200, "estep.sweeps": 2, "train.device": "auto"},
    "metrics": {"bound": "max"},
    "search": "random",
    "trials": 2,
    "axes": [{"key": "train.rate", "float": [1e-3, 2e-2], "log": True}],
}
PATIENCE = 60.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TREE))
    return path


def resources(
    workers: str = "0", each: float | None = None, share: float | None = None
) -> TrialResources:
    return TrialResources.parse(workers, each, share, None, 0.0)


@pytest.mark.parametrize(
    ("given", "room"),
    [
        (resources(), 6),
        (resources("2"), 3),
        (resources("7"), 0),
        (resources("2:16"), 1),
        (resources("1", each=0.5), 2),
        (resources(share=0.25), 4),
        (resources(share=2), 0),
    ],
)
def test_as_many_trials_are_side_by_side_as_fit_on_all_machines(
    given: TrialResources, room: int
) -> None:
    assert given.max_concurrent([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}, {}], 1) == room


def test_more_side_by_side_than_fit_are_refused_and_what_there_is_is_said(file: Path) -> None:
    space, given = load_space(str(file)), resources("2")
    there = [{"CPU": 4.0}, {"CPU": 1.0}]
    assert (
        limit_concurrency(prepare_space(space, {}, resources=given), given, there, None).concurrent
        == 2
    )
    with pytest.raises(
        Refusal,
        match=(
            r"--concurrent: .*3 trials .* of 2 workers need 6 CPUs; Ray has 5 CPUs and 0 GPUs on 2"
            r" machines"
        ),
    ):
        limit_concurrency(prepare_space(space, {}, concurrent=3, resources=given), given, there, 3)


def test_trials_side_by_side_are_said_to_need_as_many_workers_as_they_may_have() -> None:
    """A refusal by which they need no more than there is would contradict itself."""
    given, there = resources("1:4"), [{"CPU": 4.0}]
    assert given.max_concurrent(there, 1) == 1
    said = given.describe_shortage(there, 1, trials=2)
    assert said.startswith("2 trials side by side of 4 workers need 8 CPUs; Ray has 4 CPUs")
    assert given.describe_shortage([{}], 1).startswith("a trial of 1 worker needs 1 CPU;")


@pytest.mark.parametrize(
    ("words", "message"),
    {
        ("0", 1.0, None): "--gpus-per-worker: there are no workers",
        ("2", 0.0, 0.5): "--gpus-per-trial: trials of --workers",
        ("0", 0.0, 1.5): "--gpus-per-trial: 1.5",
        ("two", 0.0, None): "--workers: 'two'",
    }.items(),
)
def test_means_that_contradict_each_other_are_refused(
    words: tuple[str, float, float | None], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        resources(*words)


TWO_GPUS = [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("given", "device", "room"),
    [
        (resources("2"), "auto", 1),
        (resources("2", each=0.5), "auto", 2),
        (resources("2"), "cpu", 4),
        (resources("1:8"), "cuda", 1),
        (resources("4"), "auto", 0),
    ],
)
def test_workers_of_trials_take_a_gpu_each_unless_told_otherwise(
    given: TrialResources, device: str, room: int
) -> None:
    assert given.with_gpus(TWO_GPUS, device).max_concurrent(TWO_GPUS, 1) == room


@pytest.mark.parametrize(
    ("given", "device", "slots", "gpus"),
    [
        (resources(), "auto", 8, 0.25),
        (resources(), "cuda", 1, 1.0),
        (resources(), "cpu", 8, 0.0),
        (resources(share=0), "auto", 8, 0.0),
        (resources(share=0.5), "auto", 8, 0.5),
    ],
)
def test_trials_share_the_gpus_in_equal_parts_unless_told_otherwise(
    given: TrialResources, device: str, slots: int, gpus: float
) -> None:
    assert given.with_gpus(TWO_GPUS, device).tune_request(TWO_GPUS, 1, slots) == {
        "cpu": 1,
        "gpu": gpus,
    }


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_trials_that_share_gpus_equally_all_fit_as_ray_counts(gpus: int) -> None:
    """It counts in ten-thousandths of a GPU, and rounds requests to the nearest."""
    machine = [{"CPU": 64.0, "GPU": float(gpus)}]
    for trials in range(gpus, 65):
        share = resources().tune_request(machine, 1, trials)["gpu"]
        counted = round(share * 10_000)
        assert counted == pytest.approx(share * 10_000)
        assert trials <= gpus * (10_000 // counted)


@pytest.mark.parametrize(
    ("given", "device", "message"),
    [
        (
            resources("4"),
            "auto",
            "needs 4 CPUs and 4 GPUs; .*2 GPUs.*--gpus-per-worker 0.5 to.*0 to train on the CPU",
        ),
        (
            resources("4"),
            "cuda",
            "--gpus-per-worker 0.5 to share them, train.device=cpu to train on the CPU",
        ),
        (resources("4", each=1), "auto", "2 GPUs on 2 machines; fewer, more machines"),
        (resources(share=4), "auto", "--gpus-per-trial: a trial needs 1 CPU and 4 GPUs"),
    ],
)
def test_too_few_gpus_for_one_trial_are_refused_with_the_ways_out(
    given: TrialResources, device: str, message: str
) -> None:
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": machine} for machine in TWO_GPUS]
    )
    with pytest.raises(Refusal, match=message):
        wait_for_capacity(ray, given, 1, lambda: 0, 1, device)


def test_that_the_test_rows_choose_is_said_and_the_space_of_mnist_holds_others_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    for name in ("train", "t10k"):
        header = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    space = load_space("mnist-vsc")
    assert space.base.data.holdout == 10_000  # type: ignore[attr-defined]
    for held, said in ((0, True), (8, False)):
        chosen = space.pinned({"data.path": str(tmp_path), "data.holdout": held})
        open_data(chosen, quiet=False, resources=resources())
        assert ("data.holdout=N takes" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (resources("2", each=0), "--gpus-per-worker: 0 hides"),
        (resources(share=0), "--gpus-per-trial: 0 hides"),
    ],
)
def test_trials_on_gpus_that_are_to_be_hidden_are_refused(
    given: TrialResources, message: str
) -> None:
    given.refuse_hidden_gpus("auto")
    with pytest.raises(Refusal, match=message):
        given.refuse_hidden_gpus("cuda")


def test_a_trial_whose_process_was_assigned_no_gpu_does_not_take_one(
    file: Path, tmp_path: Path
) -> None:
    space = prepare_space(load_space(str(file)), {"train.device": "cuda"})
    (report,) = run_trial(Trials(space, tmp_path, gpus=()), 1, {"train.rate": 0.01})
    assert "Ray assigned this process no GPU" in report["failure"]


COMMON = "AutoscalingCoordinator"
"""The actor that all trainings of a Ray share."""


def held(ray: Any) -> list[str]:
    """The remains of trainings: actors that live, and places that are kept for workers."""
    actors = [
        actor
        for actor in ray._private.state.state.actor_table(None).values()
        if actor["Name"] != COMMON
    ]
    groups = ray.util.placement_group_table().values()
    return [str(actor) for actor in actors if actor["State"] != "DEAD"] + [
        str(group) for group in groups if group["state"] != "REMOVED"
    ]


def until(reached: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + 4 * PATIENCE
    while not reached():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextmanager
def swept(file: Path, out: Path, *words: str) -> "Iterator[subprocess.Popen[str]]":
    """A sweep by the command line, which records beside its folder."""
    command = [sys.executable, "-m", "distvae", "tune", str(file), "--out", str(out), *words]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{out.parent / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
    }
    with started(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        yield run


def results(out: Path) -> dict[int, dict[str, Any]]:
    return {
        trial["number"]: trial for trial in json.loads((out / "results.json").read_text())["trials"]
    }


def tags(root: Path, experiment: str) -> list[dict[str, str]]:
    """Of the trials that were recorded."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return [run.data.tags for run in runs if run.data.tags["kind"] == "trial"]


@pytest.mark.long
def test_a_sweep_that_is_asked_to_stop_leaves_nothing_and_goes_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACE, "0.3")
    monkeypatch.setenv(REPORT_VARIABLE, "0")
    out = tmp_path / "nested"
    with cluster(1, 1) as machines:
        words = ["--address", machines.address, "--workers", "1", "train.epochs=20"]
        with swept(file, out, *words) as running:
            until(
                lambda: any(len(read_epochs(out / "trials" / trial)) >= 2 for trial in "12"),
                running,
            )
            running.send_signal(signal.SIGTERM)
            said, _ = running.communicate(timeout=120)
        assert running.returncode == 128 + signal.SIGTERM, said
        assert "--resume continues" in said
        states = {trial["state"] for trial in results(out).values()}
        assert "stopped" in states <= {"stopped", "finished"}
        with ray_session(machines.address, 0) as ray:
            until(lambda: not held(ray))
            assert ray.available_resources()["CPU"] == 2
        with swept(file, out, *words, "--resume") as running:
            said, _ = running.communicate(timeout=300)
        assert running.returncode == 0, said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    space = prepare_space(load_space(str(file)), {"train.epochs": 20}, concurrent=2)
    for number, trial in results(out).items():
        epochs = read_epochs(out / "trials" / str(number))
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, 21))
        *_, last = run_trial(Trials(space, tmp_path / "alone"), number, trial["values"])
        assert trial["figures"] == pytest.approx(last["figures"])


@pytest.mark.long
def test_trials_run_on_all_machines_and_four_share_one_gpu(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    with cluster() as machines:
        machines.add_node(num_cpus=4, num_gpus=1, node_name="one")
        machines.add_node(num_cpus=1, num_gpus=1, node_name="other")
        words = [
            "--address",
            machines.address,
            "--gpus-per-trial",
            "0.25",
            "--trials",
            "8",
            "train.epochs=1000000",
        ]
        with swept(file, out, *words) as running:
            until(lambda: len(list(out.glob("trials/*/epochs.jsonl"))) == 5, running)
            running.send_signal(signal.SIGINT)
            said, _ = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert [trial["state"] for trial in results(out).values()] == 5 * ["stopped"]
    found = tags(tmp_path, "tiny")
    assert sorted(tag["node"] for tag in found) == [*4 * ["one"], "other"]
    assert {tag["gpus"] for tag in found} == {"0"}
    assert sorted(trial["node"] for trial in results(out).values()) == [*4 * ["one"], "other"]
    (kept,) = (tmp_path / "mlartifacts").glob("*/artifacts/report/report.html")
    assert kept.read_bytes() == (out / "report.html").read_bytes()
