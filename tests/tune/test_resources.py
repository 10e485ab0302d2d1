"""Trials of several workers, on machines of a cluster, with parts of a GPU."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
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
from distvae.tune.space import read_space
from distvae.tune.sweep import limit_concurrency, open_data, prepare_space
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.processes import started
from tests.ray_cluster import cluster
from tests.train.commands import PACE

TREE: dict[str, Any] = {
    "base": "bars",
    "fixed": {"train.epochs": 12, "data.rows": 200, "estep.sweeps": 2, "train.device": "auto"},
    "metrics": {"bound": "max"},
    "search": "random",
    "trials": 2,
    "axes": [{"key": "train.rate", "float": [1e-3, 2e-2], "log": True}],
}
SPACE = read_space("tiny", TREE)
TWO_GPUS = [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0}]


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
    ],
)
def test_as_many_trials_are_side_by_side_as_fit_on_all_machines(
    given: TrialResources, room: int
) -> None:
    assert given.max_concurrent([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}, {}], 1) == room


def test_more_side_by_side_than_fit_are_refused_and_what_there_is_is_said() -> None:
    """Trials need as many workers as they may have, or the refusal would contradict itself."""
    given, there = resources("2"), [{"CPU": 4.0}, {"CPU": 1.0}]
    asked = prepare_space(SPACE, {}, resources=given)
    assert limit_concurrency(asked, given, there, None).concurrent == 2
    needs = r"3 trials .* of 2 workers need 6 CPUs; Ray has 5 CPUs and 0 GPUs on 2 machines"
    with pytest.raises(Refusal, match=f"--concurrent: .*{needs}"):
        limit_concurrency(prepare_space(SPACE, {}, concurrent=3, resources=given), given, there, 3)
    growing = resources("1:4")
    said = growing.describe_shortage([{"CPU": 4.0}], 1, trials=2)
    assert said.startswith("2 trials side by side of 4 workers need 8 CPUs; Ray has 4 CPUs")
    assert growing.describe_shortage([{}], 1).startswith("a trial of 1 worker needs 1 CPU;")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0", 1.0, None), "--gpus-per-worker: there are no workers"),
        (("2", 0.0, 0.5), "--gpus-per-trial: trials of --workers"),
        (("0", 0.0, 1.5), "--gpus-per-trial: 1.5"),
        (("two", 0.0, None), "--workers: 'two'"),
    ],
)
def test_means_that_contradict_each_other_are_refused(
    words: tuple[str, float, float | None], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        resources(*words)


@pytest.mark.parametrize(
    ("given", "device", "room"),
    [
        (resources("2"), "auto", 1),
        (resources("2", each=0.5), "auto", 2),
        (resources("2"), "cpu", 4),
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
    found = given.with_gpus(TWO_GPUS, device).tune_request(TWO_GPUS, 1, slots)
    assert found == {"cpu": 1, "gpu": gpus}


def test_trials_that_share_gpus_equally_all_fit_as_ray_counts() -> None:
    """It counts in ten-thousandths of a GPU, and rounds requests to the nearest."""
    for gpus in (1, 2, 3, 8):
        machine = [{"CPU": 64.0, "GPU": float(gpus)}]
        for trials in range(gpus, 65):
            share = resources().tune_request(machine, 1, trials)["gpu"]
            counted = round(share * 10_000)
            assert counted == pytest.approx(share * 10_000)
            assert trials <= gpus * (10_000 // counted)


SHARING = "--gpus-per-worker 0.5 to"


@pytest.mark.parametrize(
    ("given", "device", "message"),
    [
        (
            resources("4"),
            "auto",
            f"needs 4 CPUs and 4 GPUs; .*2 GPUs.*{SHARING}.*0 to train on the CPU",
        ),
        (resources("4"), "cuda", f"{SHARING} share them, train.device=cpu to train on the CPU"),
        (resources("4", each=1), "auto", "2 GPUs on 2 machines; fewer, more machines"),
        (resources(share=4), "auto", "--gpus-per-trial: a trial needs 1 CPU and 4 GPUs"),
    ],
)
def test_too_few_gpus_for_one_trial_are_refused_with_the_ways_out(
    given: TrialResources, device: str, message: str
) -> None:
    nodes = [{"Alive": True, "Resources": machine} for machine in TWO_GPUS]
    with pytest.raises(Refusal, match=message):
        wait_for_capacity(SimpleNamespace(nodes=lambda: nodes), given, 1, lambda: 0, 1, device)


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


def test_trials_without_a_gpu_do_not_train_on_one(tmp_path: Path) -> None:
    """Because all are hidden, or because Ray assigned none to the process."""
    for given, message in (
        (resources("2", each=0), "--gpus-per-worker: 0 hides"),
        (resources(share=0), "--gpus-per-trial: 0 hides"),
    ):
        given.refuse_hidden_gpus("auto")
        with pytest.raises(Refusal, match=message):
            given.refuse_hidden_gpus("cuda")
    space = prepare_space(SPACE, {"train.device": "cuda"})
    (report,) = run_trial(Trials(space, tmp_path, gpus=()), 1, {"train.rate": 0.01})
    assert "Ray assigned this process no GPU" in report["failure"]


class Swept:
    """A sweep by the command line in a folder, which records beside the sweep's folder."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.out = root, root / "sweep"
        (root / "tiny.yaml").write_text(yaml.safe_dump(TREE))
        words = ["tune", str(root / "tiny.yaml"), "--out", str(self.out), "--address", address]
        self.command = [sys.executable, "-m", "distvae", *words]
        store = f"sqlite:///{root / 'mlflow.db'}"
        self.environment = os.environ | {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}

    def run(
        self,
        *words: str,
        until: Callable[[], object] = bool,
        by: signal.Signals | None = None,
    ) -> str:
        """Run the command to its end, or until it is ended by a signal; return its messages."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [*self.command, *words]
        with started(command, env=self.environment, text=True, **pipes) as process:
            if by is not None:
                wait_until(lambda: until() or process.poll() is not None)
                process.send_signal(by)
            said, _ = process.communicate(timeout=300)
        assert process.returncode == (0 if by is None else 128 + by), said
        return str(said)

    def results(self) -> list[dict[str, Any]]:
        found = json.loads((self.out / "results.json").read_text())["trials"]
        return sorted(found, key=lambda trial: int(trial["number"]))


def wait_until(reached: Callable[[], object]) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.long
def test_a_sweep_that_is_asked_to_stop_leaves_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACE, "0.3")
    monkeypatch.setenv(REPORT_VARIABLE, "0")
    with cluster(1, 1) as machines:
        swept, words = Swept(tmp_path, machines.address), ["--workers", "1", "train.epochs=20"]
        trials = [swept.out / "trials" / name for name in "12"]
        said = swept.run(
            *words,
            until=lambda: any(len(read_epochs(trial)) >= 2 for trial in trials),
            by=signal.SIGTERM,
        )
        assert "--resume continues" in said
        states = {trial["state"] for trial in swept.results()}
        assert "stopped" in states <= {"stopped", "finished"}
        with ray_session(machines.address, 0) as session:
            ray: Any = session

            def is_free() -> bool:
                groups = ray.util.placement_group_table().values()
                left = [group for group in groups if group["state"] != "REMOVED"]
                return not left and ray.available_resources() == ray.cluster_resources()

            wait_until(is_free)
        swept.run(*words, "--resume")
    space = prepare_space(SPACE, {"train.epochs": 20}, concurrent=2)
    for number, trial in enumerate(swept.results(), 1):
        epochs = read_epochs(swept.out / "trials" / str(number))
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, 21))
        *_, last = run_trial(Trials(space, tmp_path / "alone"), number, trial["values"])
        assert trial["figures"] == pytest.approx(last["figures"])


@pytest.mark.long
def test_trials_run_on_all_machines_and_four_share_one_gpu(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with cluster() as machines:
        machines.add_node(num_cpus=4, num_gpus=1, node_name="one")
        machines.add_node(num_cpus=1, num_gpus=1, node_name="other")
        swept = Swept(tmp_path, machines.address)
        swept.run(
            *["--gpus-per-trial", "0.25", "--trials", "8", "train.epochs=1000000"],
            until=lambda: len(list(swept.out.glob("trials/*/epochs.jsonl"))) == 5,
            by=signal.SIGINT,
        )
    assert [trial["state"] for trial in swept.results()] == 5 * ["stopped"]
    nodes = [*4 * ["one"], "other"]
    assert sorted(trial["node"] for trial in swept.results()) == nodes
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    tags = [run.data.tags for run in runs if run.data.tags["kind"] == "trial"]
    assert sorted(tag["node"] for tag in tags) == nodes
    assert {tag["gpus"] for tag in tags} == {"0"}
    (kept,) = (tmp_path / "mlartifacts").glob("*/artifacts/report/report.html")
    assert kept.read_bytes() == (swept.out / "report.html").read_bytes()
