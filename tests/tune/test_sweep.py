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
from distvae.track import Sending, Store
from distvae.track.store import list_records
from distvae.track.tracker import Sender, read_record
from distvae.train.run_folder import read_epochs
from distvae.tune.folder import clear_folder, has_content, locked_folder
from distvae.tune.recorder import Recorder, SweepDisplay
from distvae.tune.space import Space, read_space
from distvae.tune.study import OptunaStudy
from distvae.tune.sweep import SweepOptions, prepare_space, run_recorded, run_sweep
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.tune.sweeps import (
    STEADY_TRIALS,
    TREE,
    Sweep,
    assert_others_go_on,
    assert_whole,
    study_states,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A space whose VSC trials all fail: their rate makes the objective infinite."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


@pytest.fixture
def space(file: Path) -> Space:
    return load_space(str(file))


def test_cores_are_shared_out_and_trials_start_no_processes(space: Space) -> None:
    cores = len(os.sched_getaffinity(0))
    settled = prepare_space(space, {}, trials=7, concurrent=1)
    assert (settled.trials, settled.concurrent, settled.base.train.threads) == (7, 1, cores)
    assert settled.base.eval.processes == 1
    assert prepare_space(space, {}, concurrent=10 * cores).base.train.threads == 1


GRID: dict[str, Any] = {name: value for name, value in TREE.items() if name != "trials"} | {
    "search": "grid"
}
"""Six combinations: two latent sizes of each of three kinds."""


@pytest.mark.parametrize(
    ("named", "given", "pinned", "expected"),
    [
        (None, None, {}, 6),
        (None, None, {"model.kind": "vsc"}, 2),
        (4, None, {"model.kind": "vsc"}, 4),
    ],
)
def test_a_grid_whose_trials_nobody_counts_tries_each_combination_once_whatever_is_pinned(
    named: int | None, given: int | None, pinned: dict[str, Plain], expected: int
) -> None:
    tree = GRID if named is None else GRID | {"trials": named}
    assert prepare_space(read_space("grid", tree), pinned, given).trials == expected


def test_settings_with_which_trials_have_nothing_to_be_ranked_by_are_refused() -> None:
    with pytest.raises(Refusal, match=r"metrics\.pesq_wb: no such figure of these trials"):
        prepare_space(load_space("demo"), {"eval.metrics": ["estoi"]})


def test_without_pesq_trials_are_ranked_by_extended_stoi(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("distvae.tasks.scores.is_installed", lambda name: False)
    settled = prepare_space(load_space("speech"), {"eval.metrics": ["pesq_wb", "stoi"]})
    assert settled.metrics == {"estoi": "max", "hoyer": "max"}
    assert settled.base.eval.metrics == ("stoi", "estoi")
    assert "pesq_wb: the package pesq is not installed" in capsys.readouterr().err


def test_a_setting_that_was_tried_is_tried_with_another_seed(space: Space, tmp_path: Path) -> None:
    space = replace(space.pinned({"model.kind": "vae", "model.latent": 4}), trials=3)
    study = OptunaStudy(space, tmp_path)
    settings = [study.next_trial() for _ in range(4)]
    assert settings[3] is None
    assert [setting.number for setting in settings if setting] == [1, 2, 3]
    assert [setting.values.get("train.seed") for setting in settings if setting] == [None, 1, 2]


def test_a_folder_that_is_not_a_sweep_is_never_replaced(
    space: Space, images: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    for force in (False, True):
        with pytest.raises(Refusal, match="images: exists"):
            run_sweep(
                space,
                folder,
                SweepOptions(data=str(images), force=force, quiet=True, root=tmp_path),
            )
    assert len(list(folder.iterdir())) == 2
    (folder / "mlflow.json").write_text("{}")  # as in the folder of a single run
    with pytest.raises(Refusal, match="images: exists"):
        run_sweep(
            space, folder, SweepOptions(data=str(images), force=True, quiet=True, root=tmp_path)
        )


def test_a_sweep_is_never_replaced_with_the_runs_of_others_inside(
    space: Space, images: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "runs", SweepOptions(data=str(images), force=True, root=tmp_path)
    for run in (".", "trials/1", "mine"):
        (out / run).mkdir(parents=True, exist_ok=True)
        (out / run / ("sweep.json" if run == "." else "run.json")).write_text("{}")
    with pytest.raises(Refusal, match="runs/mine: another run or sweep, which would be lost with"):
        run_sweep(space, out, options)
    assert {path.name for path in out.iterdir()} >= {"sweep.json", "trials", "mine"}


def interrupted(folder: Path) -> None:
    raise InterruptedError(folder)


def test_of_two_sweeps_in_a_folder_the_second_is_refused(
    space: Space, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sweep"
    with locked_folder(out):
        for force in (False, True):
            with pytest.raises(
                Refusal, match="sweep: another sweep is running in it; wait for its end"
            ):
                run_sweep(
                    space,
                    out,
                    SweepOptions(data=str(images), force=force, quiet=True, root=tmp_path),
                )
    assert not out.exists()  # nothing came of it
    out.mkdir()
    with locked_folder(out):
        pass
    assert out.is_dir()  # it was there before
    with locked_folder(out):
        (out / "trials").mkdir()
        (out / "sweep.json").touch()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", interrupted)
            with pytest.raises(InterruptedError):
                clear_folder(out)
        assert (out / "sweep.json").exists(), "it can still be replaced"
        clear_folder(out)
        assert not has_content(out)
        with pytest.raises(Refusal, match="another sweep is running"), locked_folder(out):
            pass


def test_a_cause_that_all_trials_share_is_refused_before_anything_is_written(
    space: Space, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"data\.path"):
        run_sweep(
            space, tmp_path / "out", SweepOptions(data=str(tmp_path / "nowhere"), root=tmp_path)
        )
    assert not (tmp_path / "out").exists()


def recorder_of(trials: Trials, out: Path) -> Recorder:
    """What a sweep in a folder records."""
    display = SweepDisplay(trials.space, quiet=True)
    sending = Sending(Store.find(out), out)
    return Recorder(trials, OptunaStudy(trials.space, out), display, sending, lambda: False)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow server that refuses at once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("nowhere")
def test_a_trial_is_a_run_that_reports_epochs_and_at_last_its_figures(
    space: Space, images: Path, tmp_path: Path
) -> None:
    space = space.pinned({"data.path": str(images), "eval.processes": 1})
    trials = Trials(space, tmp_path / "trials")
    reports = list(run_trial(trials, 1, {"model.kind": "sdm", "model.latent": 2}))
    assert [report.get("epoch") for report in reports] == [1, 2, None]
    assert reports[-1]["figures"]["hoyer"] > 0
    kept = from_dict(yaml.safe_load((tmp_path / "trials" / "1" / "config.yaml").read_text()))
    assert (kept.model.kind, kept.model.latent) == ("sdm", 2)
    *_, last = run_trial(trials, 2, {"model.kind": "vsc", "train.rate": 1e30})
    assert last["failure"].startswith("the objective is no longer finite")
    assert (tmp_path / "trials" / "2" / "failure.txt").read_text().startswith(last["failure"])


@pytest.mark.slow
def test_the_record_of_a_trial_has_the_bound_that_it_is_ranked_by(
    space: Space, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the bound of the best epoch, after which this trial overfits."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wide: dict[str, Plain] = {"model.hidden": [64], "estep.hidden": [64], "train.epochs": 8}
    space = space.pinned({"data.path": str(images), "eval.processes": 1, **wide})
    space = space.pinned({"train.rate": 0.03, "train.schedule": "constant"})
    trials = Trials(space, tmp_path / "trials")
    *_, last = run_trial(trials, 1, {"model.kind": "sdm", "model.latent": 4})
    bounds = [epoch["val_bound"] for epoch in read_epochs(trials.folder_of(1))]
    assert last["figures"]["val_bound"] in bounds[:-1]
    store = Store.find(tmp_path)
    list(Sender(store, trials.folder_of(1)).send())
    (record,) = list_records(store, kinds=["trial"])
    assert record.metrics["val_bound"] == last["figures"]["val_bound"]
    assert record.metrics["val_objective"] == last["figures"]["val_objective"]


def has_ended(trials: Trials, number: int) -> bool:
    """Whether the record of a trial has ended."""
    return "status" in read_record(trials.folder_of(number))


def open_files(below: Path) -> list[Path]:
    """The files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(link.readlink())
    return [file for file in found if file.is_relative_to(below)]


@pytest.fixture
def watched(space: Space, images: Path, tmp_path: Path) -> Trials:
    """Trials of many epochs that write for TensorBoard."""
    pytest.importorskip("tensorboardX", reason="no tensorboardX here")
    pinned: dict[str, Plain] = {"data.path": str(images), "eval.processes": 1, "train.epochs": 1000}
    space = space.pinned({**pinned, "train.sinks": ["tensorboard"]})
    return Trials(space, tmp_path / "trials")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere open files are not listed")
@pytest.mark.usefixtures("nowhere")
def test_a_halted_trial_closes_its_record_at_once_and_once(watched: Trials, tmp_path: Path) -> None:
    values: dict[str, Plain] = {"model.kind": "sdm"}
    recorder = recorder_of(watched, tmp_path)
    for number in (1, 2):
        trial = recorder.next_trial()
        assert trial
        reports = run_trial(watched, number, values)
        recorder.started(number, values)
        next(reports)
        assert open_files(watched.folder_of(number))
        if number == 1:
            reports.close()
        recorder.ended(number, {}, "")
        assert has_ended(watched, number)
    assert not open_files(watched.folder_of(1))
    records = [read_record(watched.folder_of(number)) for number in (1, 2)]
    assert [record["status"] for record in records] == ["KILLED", "KILLED"]
    for _ in range(2):  # as at the end of the sweep, and of a sweep that resumes it
        run_recorded(recorder, None)
    assert [read_record(watched.folder_of(number)) for number in (1, 2)] == records


@pytest.mark.usefixtures("nowhere")
def test_a_file_asks_a_trial_to_stop_and_it_goes_on_from_there(
    space: Space, images: Path, tmp_path: Path
) -> None:
    space = space.pinned({"data.path": str(images), "eval.processes": 1, "train.epochs": 1000})
    trials = Trials(space, tmp_path / "trials")
    values: dict[str, Plain] = {"model.kind": "sdm"}
    telling = run_trial(trials, 1, values)
    assert next(telling)["epoch"] == 1
    (tmp_path / "trials" / STOP_FILE.format(trials.owner)).touch()
    assert list(telling)[-1] == {"stopped": True}
    assert list(run_trial(trials, 1, values)) == [{"stopped": True}]
    (tmp_path / "trials" / STOP_FILE.format(trials.owner)).unlink()
    done = len((tmp_path / "trials" / "1" / "epochs.jsonl").read_text().splitlines())
    assert 1 <= done < 1000
    again = run_trial(trials, 1, values)
    assert next(again)["epoch"] == done + 1
    again.close()


@pytest.mark.slow
@pytest.mark.usefixtures("nowhere")
def test_a_trial_of_several_seeds_has_their_means_and_spread(
    space: Space, images: Path, tmp_path: Path
) -> None:
    space = space.pinned({"data.path": str(images), "eval.processes": 1})
    values: dict[str, Plain] = {"model.kind": "sdm", "model.latent": 2}
    reports = list(run_trial(Trials(replace(space, seeds=2), tmp_path / "both"), 1, values))
    ended = [(report.get("seed"), report.get("epoch")) for report in reports]
    assert ended == [(0, 1), (0, 2), (1, 1), (1, 2), (None, None)]
    records = sorted(tmp_path.glob("both/1/seed-*/record.json"))
    before = [record.read_bytes() for record in records]
    assert list(run_trial(Trials(replace(space, seeds=2), tmp_path / "both"), 1, values)) == [
        reports[-1]
    ]
    assert len(records) == 2
    assert [record.read_bytes() for record in records] == before
    alone = []
    for seed in (0, 1):
        trials = Trials(space.pinned({"train.seed": seed}), tmp_path / f"{seed}")
        *_, last = run_trial(trials, 1, values)
        alone.append(last["figures"])
    for name in ("squared_error", "hoyer"):
        pair = [figures[name] for figures in alone]
        assert reports[-1]["figures"][name] == pytest.approx(np.mean(pair))
        assert reports[-1]["figures"][f"{name}_spread"] == pytest.approx(np.std(pair, ddof=1))


def recorded(root: Path, experiment: str) -> tuple[Any, list[Any]]:
    """The sweep's record and its children's."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    return parent, [
        run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]


@pytest.mark.slow
def test_a_sweep_keeps_every_trial_and_goes_on_past_those_that_fail(
    file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "sweep"
    (out / "trials" / "9").mkdir(parents=True)  # an earlier sweep, which is replaced
    (out / "sweep.json").write_text("{}")
    running = Sweep(str(file), str(images), str(out))
    said = running.finish()
    trials = json.loads((out / "results.json").read_text())["trials"]
    assert {trial["number"] for trial in trials} == {1, 2, 3, 4}
    for trial in trials:
        assert trial["state"] == (
            "failed" if trial["values"]["model.kind"] == "vsc" else "finished"
        )
        assert (out / "trials" / str(trial["number"]) / "run.json").is_file()
    assert {trial["values"]["model.kind"] for trial in trials} == {"vae", "vsc", "sdm"}
    assert "failed: the objective is no longer finite" in said
    assert (out / "tradeoff.png").is_file()
    assert (out / "results.csv").is_file()
    assert len(list((out / "trials").iterdir())) == len(trials)
    parent, children = recorded(tmp_path, "tiny")
    assert parent.info.status == "FINISHED"
    ends = sorted(child.info.status for child in children)
    assert ends == sorted(trial["state"].upper() for trial in trials)
    assert sorted(study_states(out)) == sorted(
        {"FINISHED": "COMPLETE", "FAILED": "FAIL"}[end] for end in ends
    )
    shown = {trial["number"] for trial in trials if trial["state"] == "finished"}
    drawn = list((out / "trials").glob("*/evaluation/val/learning.png"))
    assert {int(path.relative_to(out / "trials").parts[0]) for path in drawn} == shown
    logged = list((tmp_path / "mlartifacts").rglob("artifacts/evaluation/val/learning.png"))
    assert len(logged) == len(shown)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_cleanly_and_keeps_what_there_is(
    file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "sweep"
    running = Sweep(str(file), str(images), str(out), "train.epochs=1000000")
    while not list(out.glob("trials/*/record.json")) and running.process.poll() is None:
        time.sleep(0.2)
    running.interrupt()
    trials = json.loads((out / "results.json").read_text())["trials"]
    assert "stopped" in {trial["state"] for trial in trials}
    parent, children = recorded(tmp_path, "tiny")
    assert parent.info.status == "KILLED"
    assert {child.info.status for child in children} <= {"KILLED", "FAILED"}
    assert "RUNNING" in study_states(out)  # for --resume


@pytest.mark.parametrize(
    "seed", [pytest.param(k, marks=pytest.mark.long if k else pytest.mark.slow) for k in range(20)]
)
def test_a_killed_sweep_goes_on_with_no_trial_lost_or_run_twice(
    seed: int, steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    words, whole = steady
    out, chance = tmp_path / "sweep", random.Random(seed)
    begun = chance.randint(1, STEADY_TRIALS - 1)
    killed = Sweep(*words, str(out), "train.epochs=40")
    killed.wait_for("trials/*/epochs.jsonl", out, begun)
    time.sleep(chance.uniform(0, 1))
    killed.kill()
    resumed = Sweep(*words, str(out), "train.epochs=40", "--resume")
    resumed.finish()
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
def test_a_trial_whose_process_is_killed_goes_on_in_another(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    assert_others_go_on(steady, tmp_path / "sweep", trial_processes)


@pytest.mark.long
def test_a_trial_whose_processes_all_die_fails_at_last_and_a_second_sweep_is_kept_out(
    steady: tuple[list[str], dict[int, Any]], tmp_path: Path
) -> None:
    (file, data), out = steady[0], tmp_path / "sweep"
    endless = Sweep(
        file, data, str(out), "train.epochs=1000000", "train.warmup=5", "model.latent=2"
    )
    endless.wait_for("trials/*/epochs.jsonl", out)
    with pytest.raises(Refusal, match="sweep: another sweep is running in it"):
        run_sweep(
            load_space(file), out, SweepOptions(data=data, quiet=True, force=True, root=tmp_path)
        )
    while not (out / "optuna.db").exists() or "FAIL" not in study_states(out):
        for process in trial_processes(endless):
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)  # before it has a new epoch
    os.killpg(endless.process.pid, signal.SIGINT)
    said = endless.process.communicate(timeout=120)[1]
    assert endless.process.returncode == 130, said
    assert endless.ends_alone()
    trials = json.loads((out / "results.json").read_text())["trials"]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed
    assert {trial["cause"] for trial in failed} == {
        "its process died 4 times without a new epoch; too little memory?"
    }
