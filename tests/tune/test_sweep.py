"""Sweeps: settings before a start, one trial without Ray, and whole sweeps in their own
processes.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from distvae.config import from_dict
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.machines.worker import STOP_FILE
from distvae.track import Store
from distvae.track.store import list_records
from distvae.track.tracker import Sender, read_record
from distvae.train.run_folder import read_epochs
from distvae.tune.folder import clear_folder, has_content, locked_folder
from distvae.tune.space import Space, read_space
from distvae.tune.sweep import SweepOptions, prepare_space, run_recorded, run_sweep
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.tune.sweeps import (
    STEADY_TRIALS,
    TREE,
    Sweep,
    assert_whole,
    recorder_of,
    study_states,
)

Steady = tuple[list[str], dict[int, Any]]
KIND: dict[str, Plain] = {"model.kind": "sdm", "model.latent": 2}
"""The settings of a trial."""


@pytest.fixture
def space(images: Path) -> Space:
    """A space whose VSC trials all fail: their rate makes the objective infinite."""
    return read_space("tiny", TREE).pinned({"data.path": str(images), "eval.processes": 1})


@pytest.mark.parametrize(
    ("named", "pinned", "expected"),
    [({}, {}, 6), ({}, {"model.kind": "vsc"}, 2), ({"trials": 4}, {"model.kind": "vsc"}, 4)],
)
def test_a_grid_whose_trials_nobody_counts_tries_each_combination_once_whatever_is_pinned(
    named: dict[str, int], pinned: dict[str, Plain], expected: int
) -> None:
    """Two latent sizes of each of three kinds. Trials share the cores, and start no processes."""
    grid = {name: value for name, value in TREE.items() if name != "trials"}
    space = read_space("grid", grid | {"search": "grid"} | named)
    assert prepare_space(space, pinned).trials == expected
    cores = len(os.sched_getaffinity(0))
    for slots, threads in {1: cores, 10 * cores: 1}.items():
        settled = prepare_space(space, pinned, trials=7, concurrent=slots)
        assert (settled.trials, settled.concurrent, settled.base.train.threads) == (
            7,
            slots,
            threads,
        )
        assert settled.base.eval.processes == 1


def test_trials_have_a_figure_to_be_ranked_by_also_without_pesq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refusal, match=r"metrics\.pesq_wb: no such figure of these trials"):
        prepare_space(load_space("demo"), {"eval.metrics": ["estoi"]})
    monkeypatch.setattr("distvae.tasks.scores.is_installed", lambda name: False)
    settled = prepare_space(load_space("speech"), {"eval.metrics": ["pesq_wb", "stoi"]})
    assert settled.metrics == {"estoi": "max", "hoyer": "max"}
    assert settled.base.eval.metrics == ("stoi", "estoi")
    assert "pesq_wb: the package pesq is not installed" in capsys.readouterr().err


def test_a_folder_that_is_not_a_sweep_or_has_runs_of_others_is_never_replaced(
    space: Space, images: Path, tmp_path: Path
) -> None:
    def refused(out: Path, message: str, data: Path = images, force: bool = True) -> None:
        options = SweepOptions(data=str(data), force=force, quiet=True, root=tmp_path)
        with pytest.raises(Refusal, match=message):
            run_sweep(space, out, options)

    folder = shutil.copytree(images, tmp_path / "images")
    for force in (False, True):
        refused(folder, "images: exists", force=force)
    (folder / "mlflow.json").write_text("{}")  # as in the folder of a single run
    refused(folder, "images: exists")
    assert len(list(folder.iterdir())) == 3
    out = tmp_path / "runs"
    for run in (".", "trials/1", "mine"):
        (out / run).mkdir(parents=True, exist_ok=True)
        (out / run / ("sweep.json" if run == "." else "run.json")).write_text("{}")
    refused(out, "runs/mine: another run or sweep, which would be lost with")
    assert {path.name for path in out.iterdir()} >= {"sweep.json", "trials", "mine"}
    with locked_folder(sweep := tmp_path / "sweep"):
        for force in (False, True):
            refused(sweep, "sweep: another sweep is running in it; wait for its end", force=force)
    assert not sweep.exists()  # nothing came of it
    refused(sweep, r"data\.path", data=tmp_path / "nowhere")
    assert not sweep.exists()


def interrupted(folder: Path) -> None:
    raise InterruptedError(folder)


def test_a_folder_that_was_there_stays_and_one_that_is_half_deleted_can_still_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "sweep").mkdir()
    with locked_folder(out):
        pass
    assert out.is_dir()
    with locked_folder(out):
        (out / "trials").mkdir()
        (out / "sweep.json").touch()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", interrupted)
            with pytest.raises(InterruptedError):
                clear_folder(out)
        assert (out / "sweep.json").exists()
        clear_folder(out)
        assert not has_content(out)
        with pytest.raises(Refusal, match="another sweep is running"), locked_folder(out):
            pass


def test_a_trial_is_a_run_that_reports_epochs_and_at_last_its_figures(
    space: Space, tmp_path: Path
) -> None:
    trials = Trials(space, tmp_path / "trials")
    reports = list(run_trial(trials, 1, KIND))
    assert [report.get("epoch") for report in reports] == [1, 2, None]
    assert reports[-1]["figures"]["hoyer"] > 0
    kept = from_dict(yaml.safe_load((tmp_path / "trials" / "1" / "config.yaml").read_text()))
    assert (kept.model.kind, kept.model.latent) == ("sdm", 2)
    *_, last = run_trial(trials, 2, {"model.kind": "vsc", "train.rate": 1e30})
    assert last["failure"].startswith("the objective is no longer finite")
    assert (tmp_path / "trials" / "2" / "failure.txt").read_text().startswith(last["failure"])


@pytest.mark.slow
def test_the_record_of_a_trial_has_the_bound_that_it_is_ranked_by(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the bound of the best epoch, after which this trial overfits."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wide: dict[str, Plain] = {"model.hidden": [64], "estep.hidden": [64], "train.epochs": 8}
    space = space.pinned({"train.rate": 0.03, "train.schedule": "constant", **wide})
    trials = Trials(space, tmp_path / "trials")
    *_, last = run_trial(trials, 1, {"model.kind": "sdm", "model.latent": 4})
    bounds = [epoch["val_bound"] for epoch in read_epochs(trials.folder_of(1))]
    assert last["figures"]["val_bound"] in bounds[:-1]
    store = Store.find(tmp_path)
    list(Sender(store, trials.folder_of(1)).send())
    (record,) = list_records(store, kinds=["trial"])
    for name in ("val_bound", "val_objective"):
        assert record.metrics[name] == last["figures"][name]


def open_files(below: Path) -> list[Path]:
    """The files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(link.readlink())
    return [file for file in found if file.is_relative_to(below)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere open files are not listed")
def test_a_halted_trial_closes_its_record_at_once_and_once(space: Space, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="no tensorboardX here")
    space = space.pinned({"train.epochs": 1000, "train.sinks": ["tensorboard"]})
    recorder = recorder_of(space, tmp_path)
    trials = recorder.trials
    for number in (1, 2):
        trial = recorder.next_trial()
        assert trial
        reports = run_trial(trials, number, {"model.kind": "sdm"})
        recorder.started(number, {"model.kind": "sdm"})
        next(reports)
        assert open_files(trials.folder_of(number))
        if number == 1:
            reports.close()
        recorder.ended(number, {}, "")
        assert "status" in read_record(trials.folder_of(number))
    assert not open_files(trials.folder_of(1))
    records = [read_record(trials.folder_of(number)) for number in (1, 2)]
    assert [record["status"] for record in records] == ["KILLED", "KILLED"]
    for _ in range(2):  # as at the end of the sweep, and of a sweep that resumes it
        run_recorded(recorder, None)
    assert [read_record(trials.folder_of(number)) for number in (1, 2)] == records


def test_a_file_asks_a_trial_to_stop_and_it_goes_on_from_there(
    space: Space, tmp_path: Path
) -> None:
    trials = Trials(space.pinned({"train.epochs": 1000}), tmp_path / "trials")
    telling = run_trial(trials, 1, KIND)
    assert next(telling)["epoch"] == 1
    (tmp_path / "trials" / STOP_FILE.format(trials.owner)).touch()
    assert list(telling)[-1] == {"stopped": True}
    assert list(run_trial(trials, 1, KIND)) == [{"stopped": True}]
    (tmp_path / "trials" / STOP_FILE.format(trials.owner)).unlink()
    done = len((tmp_path / "trials" / "1" / "epochs.jsonl").read_text().splitlines())
    assert 1 <= done < 1000
    again = run_trial(trials, 1, KIND)
    assert next(again)["epoch"] == done + 1
    again.close()


@pytest.mark.slow
def test_a_trial_of_several_seeds_has_their_means_and_spread(space: Space, tmp_path: Path) -> None:
    both = Trials(replace(space, seeds=2), tmp_path / "both")
    reports = list(run_trial(both, 1, KIND))
    ended = [(report.get("seed"), report.get("epoch")) for report in reports]
    assert ended == [(0, 1), (0, 2), (1, 1), (1, 2), (None, None)]
    records = sorted(tmp_path.glob("both/1/seed-*/record.json"))
    before = [record.read_bytes() for record in records]
    assert list(run_trial(both, 1, KIND)) == [reports[-1]]
    assert len(records) == 2
    assert [record.read_bytes() for record in records] == before
    alone = []
    for seed in (0, 1):
        trials = Trials(space.pinned({"train.seed": seed}), tmp_path / f"{seed}")
        *_, last = run_trial(trials, 1, KIND)
        alone.append(last["figures"])
    for name in ("squared_error", "hoyer"):
        pair = [figures[name] for figures in alone]
        assert reports[-1]["figures"][name] == pytest.approx(np.mean(pair))
        assert reports[-1]["figures"][f"{name}_spread"] == pytest.approx(np.std(pair, ddof=1))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a space. Records are below its folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (path := tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


def results(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["trials"]
    return found


def recorded(root: Path) -> tuple[str, list[str]]:
    """The status of the sweep's record, and the statuses of its children."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    of = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent.info.status, sorted(run.info.status for run in of)


@pytest.mark.slow
def test_a_sweep_keeps_every_trial_and_goes_on_past_those_that_fail(
    file: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    (out / "trials" / "9").mkdir(parents=True)  # an earlier sweep, which is replaced
    (out / "sweep.json").write_text("{}")
    said = Sweep(str(file), str(images), str(out)).finish()
    assert "failed: the objective is no longer finite" in said
    trials = results(out)
    states = {trial["number"]: trial["state"] for trial in trials}
    assert states.keys() == {1, 2, 3, 4}
    for trial in trials:
        fails = trial["values"]["model.kind"] == "vsc"
        assert trial["state"] == ("failed" if fails else "finished")
        assert (out / "trials" / str(trial["number"]) / "run.json").is_file()
    assert {trial["values"]["model.kind"] for trial in trials} == {"vae", "vsc", "sdm"}
    assert (out / "tradeoff.png").is_file()
    assert (out / "results.csv").is_file()
    assert len(list((out / "trials").iterdir())) == len(trials)
    assert recorded(tmp_path) == ("FINISHED", sorted(state.upper() for state in states.values()))
    ends = {"finished": "COMPLETE", "failed": "FAIL"}
    assert study_states(out) == [ends[states[number]] for number in sorted(states)]
    shown = {number for number, state in states.items() if state == "finished"}
    drawn = list((out / "trials").glob("*/evaluation/val/learning.png"))
    assert {int(path.relative_to(out / "trials").parts[0]) for path in drawn} == shown
    logged = list((tmp_path / "mlartifacts").rglob("artifacts/evaluation/val/learning.png"))
    assert len(logged) == len(shown)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_cleanly_and_keeps_what_there_is(
    file: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    running = Sweep(str(file), str(images), str(out), "train.epochs=1000000")
    running.wait_for("trials/*/record.json", out)
    running.interrupt()
    assert "stopped" in {trial["state"] for trial in results(out)}
    status, statuses = recorded(tmp_path)
    assert status == "KILLED"
    assert {*statuses} <= {"KILLED", "FAILED"}
    assert "RUNNING" in study_states(out)  # for --resume


@pytest.mark.slow
def test_the_experiment_that_a_sweep_keeps_is_read_by_rays_own_api(
    steady: Steady, shared_folder: Path
) -> None:
    from ray import tune

    from distvae.tune.ray_tune import TrialProcess

    kept = shared_folder / "steady"
    grid = tune.Tuner.restore(str(kept / "tune/steady-1"), trainable=TrialProcess).get_results()
    expected = {trial["number"]: trial for trial in results(kept)}
    assert {result.config["number"]: result.config["values"] for result in grid} == {
        number: trial["values"] for number, trial in expected.items()
    }
    for result in grid:
        figures = expected[result.config["number"]]["figures"]
        assert {name: result.metrics[name] for name in figures} == figures
        epochs = read_epochs(kept / "trials" / str(result.config["number"]))
        frame = result.metrics_dataframe
        told = frame[frame["epoch"].notna()]
        assert told["epoch"].tolist() == list(range(1, 41))
        assert told["val_bound"].tolist() == [epoch["val_bound"] for epoch in epochs]
    best = grid.get_best_result("squared_error", "min")
    assert best.config["number"] == min(
        expected, key=lambda number: expected[number]["figures"]["squared_error"]
    )
    assert not (kept / ".tune").exists()


@pytest.mark.parametrize(
    "seed", [pytest.param(k, marks=pytest.mark.long if k else pytest.mark.slow) for k in range(20)]
)
def test_a_killed_sweep_goes_on_with_no_trial_lost_or_run_twice(
    seed: int, steady: Steady, tmp_path: Path
) -> None:
    words, whole = steady
    out, chance = tmp_path / "sweep", random.Random(seed)
    begun = chance.randint(1, STEADY_TRIALS - 1)
    killed = Sweep(*words, str(out), "train.epochs=40")
    killed.wait_for("trials/*/epochs.jsonl", out, begun)
    time.sleep(chance.uniform(0, 1))
    killed.process.kill()
    killed.process.communicate(timeout=100)
    Sweep(*words, str(out), "train.epochs=40", "--resume").finish()
    assert_whole(out, whole)


def trial_processes(running: Sweep) -> list[int]:
    """The processes of a sweep that trials run in, whose titles lie where their environment was."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = Path("/proc") / (path / "stat").read_text().rpartition(")")[2].split()[1]
            ours = running.mark.encode() in (parent / "environ").read_bytes()
            if ours and (path / "cmdline").read_text().startswith("ray::ResourceTrainable"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.long
def test_a_trial_whose_process_is_killed_goes_on_in_another(steady: Steady, tmp_path: Path) -> None:
    (words, whole), out = steady, tmp_path / "sweep"
    running = Sweep(*words, str(out), "train.epochs=40")
    running.wait_for("trials/*/last.json", out)
    killed = trial_processes(running)
    assert killed
    for process in killed:
        os.kill(process, signal.SIGKILL)
    assert "; another continues it" in running.finish()
    assert_whole(out, whole)


@pytest.mark.long
def test_a_trial_whose_processes_all_die_fails_at_last_and_a_second_sweep_is_kept_out(
    steady: Steady, tmp_path: Path
) -> None:
    (file, data), out = steady[0], tmp_path / "sweep"
    words = ["train.epochs=1000000", "train.warmup=5", "model.latent=2"]
    endless = Sweep(file, data, str(out), *words)
    endless.wait_for("trials/*/epochs.jsonl", out)
    options = SweepOptions(data=data, quiet=True, force=True, root=tmp_path)
    with pytest.raises(Refusal, match="sweep: another sweep is running in it"):
        run_sweep(load_space(file), out, options)
    while not (out / "optuna.db").exists() or "FAIL" not in study_states(out):
        for process in trial_processes(endless):
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)  # before it has a new epoch
    endless.interrupt()
    failed = [trial for trial in results(out) if trial["state"] == "failed"]
    assert failed
    assert {trial["cause"] for trial in failed} == {
        "its process died 4 times without a new epoch; too little memory?"
    }
