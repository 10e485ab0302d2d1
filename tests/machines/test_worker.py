"""Several workers train as one does, report after the same epochs, stop when asked, or say why they
cannot.
"""

import errno
import json
import subprocess
import threading
import time
from pathlib import Path
from typing import TypeVar

import pytest

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines import driver
from distvae.machines.cluster import WorkerGroup
from distvae.machines.driver import _raise_outcome, _stop_workers, remove_ray_folders, run_workers
from distvae.machines.worker import (
    REPORT_VARIABLE,
    WORKER_ERROR_FILE,
    Job,
    RayReports,
    Wait,
    WatchedTeam,
    has_failed_again,
    request_stop,
    stop_requested,
)
from distvae.train.loop import Epoch, Interrupted
from distvae.train.run_folder import EVENTS
from distvae.train.team import ALONE, Alone, Team
from tests.slowly import long, slow
from tests.train.commands import PLAIN, TORCHRUN, command, run, same
from tests.train.crew import crew_of

SPEECH = [
    *("speech-sdm", "data.path=built-in speech", "model.latent=4"),
    *("train.warmup=3", "train.epochs=1"),
]
BARS = ["bars", "data.rows=200", "train.epochs=4"]
T = TypeVar("T")


@pytest.mark.parametrize("recipe", [*slow(BARS), *long(SPEECH)])
def test_two_workers_equal_one(recipe: list[str], tmp_path: Path) -> None:
    same(run(PLAIN, recipe, tmp_path / "one"), run(TORCHRUN, recipe, tmp_path / "two"))


@pytest.mark.long
def test_one_worker_of_ray_trains_as_the_plain_process_does(tmp_path: Path) -> None:
    alone = run(PLAIN, BARS, tmp_path / "plain")
    same(alone, run(PLAIN, BARS, tmp_path / "ray", "--workers", "1"), 0.0)


TOO_FEW_ROWS = (["train.batch=33", "--workers", "2"], "33 can be shared by 1 workers at most")
TOO_MANY = (["--workers", "32"], "32 workers need 32 CPUs, and Ray has")


@pytest.mark.parametrize("case", [*slow(TOO_FEW_ROWS), *long(TOO_MANY)])
def test_what_cannot_be_done_is_said_once_with_exit_code_two(
    case: tuple[list[str], str], tmp_path: Path
) -> None:
    words, message = case
    start = command(PLAIN, BARS, tmp_path / "run", *words)
    done = subprocess.run(start, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "nothing that the repeat would have to replace"


EPOCHS = 100


def reported_epochs(team: Team, pace: float, interval: float = 5.0) -> list[int]:
    """Return the epochs that a worker reports of a hundred, each of `pace` seconds by its clock."""
    now, reported = [0.0], list[int]()
    reports = RayReports(team, lambda e: reported.append(e.epoch), interval, lambda: now[0])
    for epoch in range(1, EPOCHS + 1):
        now[0] += pace
        reports.epoch_ended(Epoch.read({"epoch": epoch}, EPOCHS))
    reports.training_ended()
    return reported


def test_epochs_are_reported_after_some_seconds_which_a_setting_changes_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seconds() -> float:
        return Job.of({}, "", Folder("run"), "owner").report_seconds

    assert reported_epochs(ALONE, 0.3, seconds()) == [17, 34, 51, 68, 85, 100]
    assert reported_epochs(ALONE, 7.0, seconds()) == list(range(1, EPOCHS + 1))
    monkeypatch.setenv(REPORT_VARIABLE, "0")
    assert reported_epochs(ALONE, 0.1, seconds()) == list(range(1, EPOCHS + 1))
    monkeypatch.setenv(REPORT_VARIABLE, "soon")
    with pytest.raises(Refusal, match=REPORT_VARIABLE):
        seconds()


@pytest.mark.slow
def test_all_workers_report_the_same_epochs() -> None:
    with crew_of(3) as crew:
        reported = crew.all(reported_epochs, [0.3, 0.4, 0.1])
    assert reported[0] == reported[1] == reported[2]


class Held(Alone):
    """A team whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def gather(self, value: T, /) -> list[T]:
        self.let_go.wait()
        return [value]


@pytest.mark.slow
def test_a_long_wait_is_told_once_and_a_short_one_never() -> None:
    waits, told = list[Wait](), threading.Event()

    def tell(wait: Wait) -> None:
        waits.append(wait)
        told.set()

    team = WatchedTeam(held := Held(), 0.5, tell)
    held.let_go.set()
    team.gather(3)
    assert not waits
    held.let_go.clear()
    waiting = threading.Thread(target=team.gather, args=[3])
    waiting.start()
    assert told.wait(60)
    time.sleep(2.5)  # time for the thread to look twice more
    held.let_go.set()
    waiting.join()
    team.close()
    (wait,) = waits
    assert (wait.rank, wait.workers, wait.call, wait.phase) == (0, 1, 2, "an exchange of values")
    assert 0.5 <= wait.seconds < 60
    assert team.waited >= wait.seconds


def test_an_error_that_three_starts_meet_at_one_point_is_final(tmp_path: Path) -> None:
    folder, error = Folder(tmp_path), OSError("uncorrectable ECC error")
    assert [has_failed_again(folder, "me", error) for _ in range(3)] == [False, False, True]
    assert not has_failed_again(folder, "another", error)
    event: dict[str, object] = {"epoch": 0, "batch": 7, "workers": 2, "time": 0.0}
    folder.append(EVENTS, json.dumps(event).encode() + b"\n")
    assert not has_failed_again(folder, "me", error), "training has moved on since"


def test_who_trains_for_one_owner_does_not_heed_what_stops_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    request_stop(folder, "former")
    error = json.dumps({"kind": "Refusal", "text": "another training"})
    folder.write(WORKER_ERROR_FILE.format("former"), error.encode())
    assert not stop_requested(folder, "present")()
    _raise_outcome(False, folder, "present")
    assert stop_requested(folder, "former")()
    with pytest.raises(Refusal, match="another training"):
        _raise_outcome(True, folder, "former")
    assert folder.list_files() == [], "what was told is no longer of use"
    with pytest.raises(Interrupted):
        _raise_outcome(True, folder, "former")


@pytest.mark.parametrize("place", ["run", "file/run"])
def test_workers_that_do_not_stop_hide_no_error(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "STOP_SECONDS", 0.0)
    (tmp_path / "file").write_bytes(b"so that nothing can be written below it")
    over = threading.Event()
    workers = threading.Thread(target=over.wait)
    workers.start()
    _stop_workers(workers, Folder(tmp_path / place), "owner")
    over.set()
    workers.join()


class Busy(Folder):
    """A folder that cannot be removed, with subfolders that cannot be removed."""

    def subfolder(self, name: str) -> Folder:
        return Busy(f"{self.address}/{name}")

    def remove(self) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")


def test_folders_of_ray_are_removed_or_told_of_and_hide_no_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ray-8bfb631321cf524b/workers", "evaluation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ray-notes.txt").write_text("kept")
    remove_ray_folders(Folder(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "ray-notes.txt"]
    job = Job(config={}, recipe="", place=str(tmp_path), owner="owner")
    assert str(tmp_path) not in str(job)  # Ray's dashboard shows it, and a URI has a password
    # Ray Train refuses two to one workers before it starts anything.
    group = WorkerGroup(min_workers=2, max_workers=1)
    assert isinstance(run_workers(job, Busy(tmp_path), group, 1), ValueError)
    told = f"distvae: {tmp_path}/ray-owner: could not be removed ([Errno 39] Directory not empty)"
    assert capsys.readouterr().err.startswith(told)
