"""What reaches MLflow, read back through its own client; and that nothing that fails there reaches
training.
"""

import json
import math
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

import distvae
from distvae.commands.report import ReportOptions, write_report
from distvae.commands.sync import sync_folders
from distvae.config import Config, flatten
from distvae.files.refusal import Refusal
from distvae.report.logged import write_and_log
from distvae.track import Relay, Store, Tracker, without_secrets
from distvae.track.journal import HEAD, LINES, Journal
from tests.report import folders as sweeps
from tests.track.records import RECORD, history, runs, tracker


def test_a_run_is_recorded_with_its_parameters_epochs_figures_and_files(root: Path) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    folder = root / "one" / "evaluation" / "test"
    (folder / "sounds").mkdir(parents=True)
    for name in ("codes.png", "sounds/original.wav", "files.csv", "files.parquet"):
        (folder / name).write_bytes(b"x")
    record.evaluation({"hoyer": 0.5, "pesq_wb": math.nan}, folder)
    record.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert found.data.params == {key: str(value) for key, value in flatten(Config()).items()}
    assert found.data.metrics["val_bound"] == -2.5
    assert found.data.metrics["hoyer"] == 0.5
    assert not {"val_kl", "pesq_wb"} & found.data.metrics.keys()
    kept = root / "mlartifacts" / found.info.run_id / "artifacts"
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()} == {
        "evaluation/codes.png",
        "evaluation/sounds/original.wav",
        "evaluation/files.csv",
    }


def test_a_resumed_run_goes_on_with_its_record_and_logs_no_epoch_twice(root: Path) -> None:
    first = tracker(root)
    for n in (1, 2, 3):
        first.epoch(replace(RECORD, epoch=n))
    first.close("KILLED")
    again = tracker(root)
    for n in (3, 4):
        again.epoch(replace(RECORD, epoch=n, val_bound=-float(n)))
    again.close()
    (found,) = runs(root)
    assert found.info.status == "FINISHED"
    assert history(root, found.info.run_id, "val_bound") == [
        (1, -2.5),
        (2, -2.5),
        (3, -2.5),
        (4, -4.0),
    ]


def test_a_folder_that_was_replaced_begins_a_new_record(root: Path) -> None:
    tracker(root).epoch(RECORD)
    shutil.rmtree(root / "one")
    tracker(root).epoch(RECORD)
    assert len(runs(root)) == 2


def test_a_record_that_this_store_does_not_have_is_begun_anew(root: Path) -> None:
    tracker(root).create()
    (known,) = runs(root)
    Journal(root / "one").update_head(id="0123456789abcdef0123456789abcdef")
    record = tracker(root)
    record.epoch(RECORD)
    assert {run.info.run_id for run in runs(root)} == {known.info.run_id, record.id}


def test_trials_are_children_of_their_sweep(root: Path) -> None:
    (root / "sweep").mkdir()
    sweep = Tracker(
        Store.find(root), "here", "sweep", root / "sweep", {"trials": 2}, {"kind": "sweep"}
    )
    sweep.create()
    for name in ("0", "1"):
        tracker(root, name, root / "sweep").close("FAILED")
    children = {
        run.info.run_name
        for run in runs(root)
        if run.data.tags.get("mlflow.parentRunId") == sweep.id
    }
    assert children == {"0", "1"}


def test_what_fails_is_said_once_without_secrets_and_never_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record = tracker(tmp_path)
    record.epoch(RECORD)
    record.epoch(replace(RECORD, epoch=2))
    record.evaluation({"hoyer": 0.5}, tmp_path)
    record.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "127.0.0.1" in said
    assert "'distvae sync'" in said
    assert "hunter2" not in said
    assert not any("hunter2" in path.read_text() for path in (tmp_path / "one").iterdir())


def away(root: Path) -> None:
    (root / "mlflow.db").rename(root / "away.db")
    (root / "mlflow.db").mkdir()


def back(root: Path) -> None:
    (root / "mlflow.db").rmdir()
    (root / "away.db").rename(root / "mlflow.db")


def test_what_a_store_did_not_take_it_gets_when_it_is_back(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    away(root)
    record.epoch(RECORD)
    back(root)
    record.epoch(replace(RECORD, epoch=2))
    record.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2]
    assert capsys.readouterr().err.endswith("one: MLflow has everything now.\n")
    assert not Journal(root / "one").pending()


def test_a_process_that_ended_while_the_store_was_away_is_told_of_later(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep whose trial was resumed, all of it before the store came back: one record each, every
    epoch once.
    """
    (root / "sweep").mkdir()
    away(root)
    sweep = Tracker(
        Store.find(root), "here", "sweep", root / "sweep", {"trials": 1}, {"kind": "sweep"}
    )
    sweep.create()
    first = tracker(root, "sweep/trial", root / "sweep")
    for n in (1, 2, 3):
        first.epoch(replace(RECORD, epoch=n))
    again = tracker(root, "sweep/trial", root / "sweep")
    for n in (3, 4):
        again.epoch(replace(RECORD, epoch=n, val_bound=-float(n)))
    (root / "sweep" / "trial" / "picture.png").write_bytes(b"x")
    again.files([root / "sweep" / "trial" / "picture.png"], "pictures")
    again.close()
    sweep.close("FAILED")
    assert sync_folders(root, []) == 2
    back(root)
    assert sync_folders(root, []) == 0
    found = {run.info.run_name: run for run in runs(root)}
    assert {name: run.info.status for name, run in found.items()} == {
        "sweep": "FAILED",
        "trial": "FINISHED",
    }
    trial = found["trial"]
    assert trial.data.tags["mlflow.parentRunId"] == found["sweep"].info.run_id
    assert history(root, trial.info.run_id, "val_bound") == [
        (1, -2.5),
        (2, -2.5),
        (3, -2.5),
        (4, -4.0),
    ]
    assert (
        root / "mlartifacts" / trial.info.run_id / "artifacts" / "pictures" / "picture.png"
    ).exists()
    assert sync_folders(root, []) == 0
    assert capsys.readouterr().out.endswith("nothing is waiting to be sent\n")
    assert len(runs(root)) == 2


@contextmanager
def refusing(root: Path, *steps: int) -> Iterator[None]:
    """A store that does not take what is told of some epochs."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        listed = ", ".join(map(str, steps))
        refuse = f"when new.step in ({listed}) begin select raise(abort, 'no room'); end"
        database.execute(f"create trigger refuse before insert on metrics {refuse}")
        yield
        database.execute("drop trigger refuse")


def test_epochs_that_a_store_refused_are_sent_again_in_order(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    with refusing(root, 2, 3):
        record.epoch(replace(RECORD, epoch=2))
        record.close("KILLED")
    assert sync_folders(root, []) == 0
    record.epoch(replace(RECORD, epoch=3))
    record.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2, 3]
    assert found.info.status == "FINISHED"
    assert not Journal(root / "one").pending()
    assert "does not take what there is to tell" in capsys.readouterr().err


def test_epochs_that_a_store_took_and_lost_are_sent_again(root: Path) -> None:
    """As where its database came back from a copy, or where this program believed what was not
    so.
    """
    record = tracker(root)
    for n in (1, 2, 3, 4):
        record.epoch(replace(RECORD, epoch=n))
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("delete from metrics where step in (2, 4)")
        database.commit()
    again = tracker(root)
    again.epoch(replace(RECORD, epoch=5))
    again.close()
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2, 3, 4, 5]
    assert found.info.status == "FINISHED"


def test_a_file_that_is_gone_holds_up_nothing(root: Path) -> None:
    record = tracker(root)
    record.files([root / "one" / "gone.png"], "pictures")
    record.close()
    assert [run.info.status for run in runs(root)] == ["FINISHED"]


def test_a_folder_that_takes_no_notes_is_named_once_and_stops_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tracker(root)
    (root / "one" / LINES).mkdir()
    record.epoch(RECORD)
    record.epoch(replace(RECORD, epoch=2))
    assert not record.complete
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{root / 'one'} does not take notes" in said
    (root / "one" / LINES).rmdir()
    record.close()
    assert record.complete


def test_an_entry_that_a_full_disk_cut_short_spoils_no_other(root: Path) -> None:
    away(root)
    tracker(root).epoch(RECORD)
    with (root / "one" / LINES).open("a") as file:
        file.write('{"is": "metr')
    tracker(root).epoch(replace(RECORD, epoch=2))
    back(root)
    assert sync_folders(root, [root / "one"]) == 0
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["tell", "send", "fail"]), max_size=12), st.data())
def test_whatever_fails_in_between_entries_are_told_once_and_in_order(
    steps: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal, told, count = Journal(Path(folder)), list[int](), 0
        for step in steps:
            if step == "tell":
                journal.append({"is": "metrics", "step": count})
                count += 1
                continue
            waiting = [entry["step"] for entry in journal.pending()]
            sent = len(waiting) if step == "send" else data.draw(st.integers(0, len(waiting)))
            told += waiting[:sent]
            journal.mark_sent(sent)
        assert told + [entry["step"] for entry in journal.pending()] == list(range(count))


def test_lines_that_are_added_while_others_are_sent_are_told_once_and_in_order(
    tmp_path: Path,
) -> None:
    journal, told, count = Journal(tmp_path), list[int](), 300
    journal.write_head({})

    def write() -> None:
        for n in range(count):
            journal.append({"is": "metrics", "step": n})

    writing = threading.Thread(target=write)
    writing.start()
    while len(told) < count:
        waiting = [entry["step"] for entry in journal.pending()]
        told += waiting
        journal.mark_sent(len(waiting))
        assert writing.is_alive() or journal.pending() or len(told) == count
    assert told == list(range(count))


def test_a_relay_sends_what_others_wrote_down_and_what_those_left_that_ended(root: Path) -> None:
    """Trackers without a store are those of trials, in whatever process and on whatever machine."""
    (root / "sweep").mkdir()
    Tracker(Store.find(root), "here", "sweep", root / "sweep", {}, {"kind": "sweep"}).create()
    old, new = (
        replace(tracker(root, f"sweep/trials/{name}", root / "sweep"), store=None)
        for name in ("old", "new")
    )
    old.epoch(RECORD)
    old.close("KILLED")
    assert len(runs(root)) == 1
    with Relay(Store.find(root), root / "sweep" / "trials") as relay:
        new.epoch(RECORD)
        relay.notify(new.folder)
        until = time.monotonic() + 60
        while len(runs(root)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        assert len(runs(root)) == 2
        new.epoch(replace(RECORD, epoch=2))
        new.close()
    found = {run.info.run_name: run for run in runs(root)}
    assert {name: run.info.status for name, run in found.items()} == {
        "sweep": "RUNNING",
        "old": "KILLED",
        "new": "FINISHED",
    }
    assert [step for step, _ in history(root, found["new"].info.run_id, "val_bound")] == [1, 2]
    assert found["old"].data.tags["mlflow.parentRunId"] == found["sweep"].info.run_id


def test_a_relay_to_a_store_that_is_away_says_so_once_and_sends_all_when_it_is_back(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = replace(tracker(root, "trials/1"), store=None)
    away(root)
    with Relay(Store.find(root), root / "trials") as relay:
        for n in (1, 2):
            trial.epoch(replace(RECORD, epoch=n))
            relay.notify(trial.folder)
            time.sleep(0.7)
        back(root)
    (found,) = runs(root)
    assert [step for step, _ in history(root, found.info.run_id, "val_bound")] == [1, 2]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "does not take what there is to tell" in said[0]
    assert said[1] == "MLflow answers again."


def test_a_relay_leaves_out_what_is_damaged_or_vanishes(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, *others = (replace(tracker(root, f"trials/{n}"), store=None) for n in range(9, 0, -1))
    for trial in others:
        trial.epoch(RECORD)
    (root / "trials" / "1" / HEAD).write_text('{"experiment": "he')
    (root / "trials" / "2" / HEAD).unlink()
    with Relay(Store.find(root), root / "trials") as relay:
        relay.notify(root / "trials")
        for n in range(8, 2, -1):
            time.sleep(0.1)
            (root / "trials" / str(n)).rename(root / f"moved {n}")
            relay.notify(root / "trials" / str(n))
        time.sleep(1)
        last.epoch(RECORD)
        last.close()
    found = {run.info.run_name: run for run in runs(root)}
    assert found["9"].info.status == "FINISHED"
    said = sorted(capsys.readouterr().err.splitlines())
    assert len(said) == 2, said
    assert f"{root / 'trials' / '1' / HEAD}: altered or damaged" in said[0]
    assert f"{root / 'trials' / '2' / HEAD}: missing" in said[1]


def test_what_is_damaged_is_named_and_the_rest_is_sent(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1", "2"):
        replace(tracker(root, name), store=None).epoch(RECORD)
    (root / "1" / HEAD).write_text("[1")
    assert sync_folders(root, []) == 1
    said = capsys.readouterr()
    assert f"{root / '1' / HEAD}: altered or damaged" in said.err
    assert said.out.startswith(f"{root / '2'}: sent")


def test_a_folder_to_be_sent_that_does_not_exist_is_refused(root: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere: no such folder; the folder of a run or sweep"):
        sync_folders(root, [root / "nowhere"])


def test_a_store_that_never_heard_of_a_run_gets_all_of_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker(root).epoch(RECORD)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere / 'mlflow.db'}")
    tracker(root).epoch(replace(RECORD, epoch=2))
    (found,) = runs(elsewhere)
    assert [step for step, _ in history(elsewhere, found.info.run_id, "val_bound")] == [1, 2]


@pytest.mark.filterwarnings(
    "ignore:.*type hint is inferred as AnyType"
)  # MLflow's, of its own types
def test_a_logged_model_gives_codes_and_reconstructions(root: Path, trained: Path) -> None:
    import mlflow

    run = distvae.load(trained)
    record = Tracker.open(run.config, "bars", trained, "here", root=root)
    record.epoch(RECORD)
    record.model()
    record.close()
    (found,) = runs(root)
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    (output,) = found.outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    x = np.random.default_rng(0).random((20, run.dims), dtype=np.float32)
    codes = model.predict(x)
    np.testing.assert_array_equal(codes, run.encode(x))
    np.testing.assert_array_equal(model.predict(x, {"give": "reconstruction"}), run.decode(codes))
    kept = [
        path.name
        for path in (root / "mlartifacts").rglob("*")
        if path.suffix in (".pkl", ".pt", ".pth")
    ]
    assert not kept


def test_a_record_names_its_data_with_a_digest(root: Path, trained: Path) -> None:
    run = distvae.load(trained)
    Tracker.open(run.config, "bars", trained, "here", root=root).epoch(RECORD)
    (found,) = runs(root)
    (data,) = (given.dataset for given in found.inputs.dataset_inputs)
    assert data.name == run.info["data"]
    assert run.info["data_digest"].startswith(data.digest)
    assert json.loads(data.profile)["rows"] == run.info["rows"]


def test_the_best_of_a_sweep_is_registered_once_and_its_alias_moves_on(
    root: Path, trained: Path
) -> None:
    from mlflow import MlflowClient

    (root / "sweep").mkdir()
    sweep = Tracker(
        Store.find(root), "here", "sweep", root / "sweep", {"trials": 2}, {"kind": "sweep"}
    )
    config = distvae.load(trained).config
    ids = []
    for name in ("1", "2"):
        folder = shutil.copytree(trained, root / "sweep" / "trials" / name)
        record = Tracker.open(config, "bars", folder, "here", root / "sweep", root)
        record.model()
        record.close()
        ids.append(record.id)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    for best, versions in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
        sweep.register("bars", root / "sweep" / "trials" / best)
        assert client.get_model_version_by_alias("bars", "best").run_id == ids[int(best) - 1]
        assert len(client.search_model_versions("name = 'bars'")) == versions
    assert {run.info.status for run in runs(root) if run.info.run_id in ids} == {"FINISHED"}


def test_the_best_of_a_sweep_is_registered_though_its_record_is_not_begun(
    root: Path, trained: Path
) -> None:
    from mlflow import MlflowClient

    (root / "sweep").mkdir()
    sweep = Tracker(
        Store.find(root), "here", "sweep", root / "sweep", {"trials": 1}, {"kind": "sweep"}
    )
    best = trained.rename(root / "sweep" / "1")
    record = Tracker(
        None, "here", "1", best, {"model.kind": "tvae"}, {"kind": "trial"}, root / "sweep"
    )
    record.model()
    record.close()
    telling = threading.Thread(target=lambda: sweep.register("bars", best), daemon=True)
    telling.start()
    telling.join(60)
    assert not telling.is_alive()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    assert client.get_model_version_by_alias("bars", "best").run_id == Journal(best).head()["id"]


def test_who_waits_for_a_sweep_does_not_keep_a_trial_of_it_from_others(root: Path) -> None:
    """Else it would wait for ever for one who registers that trial, and that one for it."""
    (root / "sweep").mkdir()
    Tracker(None, "here", "sweep", root / "sweep", {}, {"kind": "sweep"}).create()
    trial = replace(tracker(root, "sweep/1", root / "sweep"), store=None)
    trial.epoch(RECORD)
    sending = threading.Thread(target=sync_folders, args=(root, [trial.folder]), daemon=True)
    with Journal(root / "sweep").locked():
        sending.start()
        time.sleep(0.5)  # in which it asks for the sweep
        with FileLock(trial.folder / f".{HEAD}.lock", timeout=20):
            pass
    sending.join(60)
    assert not sending.is_alive()
    assert len(runs(root)) == 2


WRITER = """
import math, sys
from dataclasses import replace
from pathlib import Path
from tests.report import folders as sweeps
from tests.track.records import RECORD, tracker
record = tracker(Path(sys.argv[1]), sys.argv[2])
for n in range(1, 31):
    record.epoch(replace(RECORD, epoch=n, val_bound=-n / int(sys.argv[2])))
record.close()
"""


@pytest.mark.slow
def test_first_users_side_by_side_lose_no_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of them, on a store that has no tables yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    numbers = [str(n) for n in range(1, 7)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), n], stderr=subprocess.PIPE, text=True
        )
        for n in numbers
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert said == [""] * len(numbers)
    found = runs(tmp_path)
    assert sorted(run.info.run_name for run in found) == numbers
    for run in found:
        expected = [(n, -n / int(run.info.run_name)) for n in range(1, 31)]
        assert history(tmp_path, run.info.run_id, "val_bound") == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/path", "https://host/path"),
        (
            "API request to http://tok@host:5000/api failed",
            "API request to http://host:5000/api failed",
        ),
        ("postgresql://u:p@db/name?password=secret&x=1", "postgresql://db/name?password=...&x=1"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_what_is_shown_holds_no_credentials(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_where_to_look_names_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Store.find(Path("runs")).uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert Store.find(Path("runs")).viewer == "distvae ui"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example")
    assert Store.find(Path("runs")).viewer == "https://tracking.example"


def test_a_report_is_kept_long_after_the_end_which_stays_as_it_was(root: Path) -> None:
    record = tracker(root)
    record.epoch(RECORD)
    record.close("KILLED")
    (ended,) = runs(root)
    for text in ("first", "second"):
        (root / "one" / "report.html").write_text(text)
        found = Tracker.of_folder(root / "one", Store.find(root))
        assert found
        found.report(root / "one" / "report.html")
    (after,) = runs(root)
    assert (after.info.status, after.info.end_time) == ("KILLED", ended.info.end_time)
    kept = root / "mlartifacts" / after.info.run_id / "artifacts" / "report" / "report.html"
    assert kept.read_text() == "second"
    assert not Journal(root / "one").pending()


def test_a_report_that_a_store_did_not_take_waits_for_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker(root).close()
    (root / "one" / "report.html").write_text("page")
    found = Tracker.of_folder(root / "one", Store.find(root))
    assert found
    away(root)
    found.report(root / "one" / "report.html")
    assert "'distvae sync' sends it" in capsys.readouterr().err
    back(root)
    assert sync_folders(root, []) == 0
    (after,) = runs(root)
    assert after.info.status == "FINISHED"
    assert (
        root / "mlartifacts" / after.info.run_id / "artifacts" / "report" / "report.html"
    ).read_text() == "page"


def test_the_page_of_a_sweep_is_recorded_when_it_is_made_anew_and_one_to_publish_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    sweeps.without_a_ledger(root / "one", trials=1)
    tracker(root).close()
    write_report(root / "one", ReportOptions(out=root / "beside.html"))
    write_report(root / "one", ReportOptions(public=True))
    assert not list((root / "mlartifacts").glob("*/artifacts/report"))
    write_report(root / "one", ReportOptions())
    (kept,) = (root / "mlartifacts").glob("*/artifacts/report/*")
    assert kept.read_bytes() == (root / "one" / "report.html").read_bytes()
    (root / "one" / "mlflow.json").write_text("{")
    write_and_log(root / "one", root, quiet=True)
    assert "its record of the MLflow run is damaged" in capsys.readouterr().err


def test_a_folder_without_a_record_or_with_one_elsewhere_is_not_told_of(root: Path) -> None:
    (root / "bare").mkdir()
    assert Tracker.of_folder(root / "bare", Store.find(root)) is None
    tracker(root).close()
    assert Tracker.of_folder(root / "one", Store("http://elsewhere")) is None
    assert Tracker.of_folder(root / "one", Store.find(root)) is not None


APPENDER = """
import sys
from pathlib import Path
from distvae.track.journal import Journal
for n in range(200):
    Journal(Path(sys.argv[1])).append({"is": "metrics", "name": sys.argv[2], "step": n})
"""


def test_of_two_processes_that_tell_of_one_folder_none_loses_an_entry(tmp_path: Path) -> None:
    """While a third forgets what was told."""
    names, journal, told = ("a", "b"), Journal(tmp_path), list[tuple[str, int]]()
    started = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), name]) for name in names
    ]
    while any(process.poll() is None for process in started) or journal.pending():
        waiting = journal.pending()
        told += [(entry["name"], entry["step"]) for entry in waiting]
        journal.mark_sent(len(waiting))
    assert [process.returncode for process in started] == [0, 0]
    assert {name: [n for other, n in told if other == name] for name in names} == {
        key: [*range(200)] for key in names
    }
