"""Several workers train as one does, or say why they cannot."""

import errno
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines import driver
from distvae.machines.cluster import WorkerGroup
from distvae.machines.driver import _raise_outcome, _stop_workers, remove_ray_folders, run_workers
from distvae.machines.worker import WORKER_ERROR_FILE, Job, request_stop, stop_requested
from distvae.train.loop import Interrupted
from tests.train.commands import PLAIN, TORCHRUN, command, run, same

SPEECH = [
    "speech-sdm",
    "data.path=built-in speech",
    "model.latent=4",
    "train.warmup=3",
    "train.epochs=1",
]
BARS = ["bars", "data.rows=200", "train.epochs=4"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [BARS, pytest.param(SPEECH, marks=pytest.mark.long)],
    ids=["populations", "encoder"],
)
def test_two_workers_equal_one(recipe: list[str], tmp_path: Path) -> None:
    same(run(PLAIN, recipe, tmp_path / "one"), run(TORCHRUN, recipe, tmp_path / "two"))


@pytest.mark.long
def test_one_worker_of_ray_trains_as_the_plain_process_does(tmp_path: Path) -> None:
    same(
        run(PLAIN, BARS, tmp_path / "plain"),
        run(PLAIN, BARS, tmp_path / "ray", "--workers", "1"),
        0.0,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    {
        ("train.batch=33", "--workers", "2"): "33 can be shared by 1 workers at most",
        ("--workers", "32"): "32 workers need 32 CPUs, and Ray has",
    }.items(),
)
def test_what_cannot_be_done_is_said_once_with_exit_code_two(
    words: list[str], message: str, tmp_path: Path
) -> None:
    start = command(PLAIN, BARS, tmp_path / "run", *words)
    done = subprocess.run(start, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "nothing that the repeat would have to replace"


@pytest.mark.parametrize("text", ["two", "0:2", "3:1", "1:2:3"])
def test_a_number_of_workers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="--workers"):
        WorkerGroup.parse(text)


def test_who_trains_for_one_owner_does_not_heed_what_stops_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    request_stop(folder, "former")
    folder.write(
        WORKER_ERROR_FILE.format("former"),
        json.dumps({"kind": "Refusal", "text": "another training"}).encode(),
    )
    assert not stop_requested(folder, "present")()
    _raise_outcome(False, folder, "present")
    assert stop_requested(folder, "former")()
    with pytest.raises(Refusal, match="another training"):
        _raise_outcome(True, folder, "former")
    assert folder.list_files() == [], "what was told is no longer of use"
    with pytest.raises(Interrupted):
        _raise_outcome(True, folder, "former")


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """Workers that do not stop, and are not waited for."""
    monkeypatch.setattr(driver, "STOP_SECONDS", 0.0)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield thread
    over.set()
    thread.join()


def left_by_an_error(running: threading.Thread, folder: Folder) -> None:
    try:
        raise InterruptedError
    finally:
        _stop_workers(running, folder, "owner")


@pytest.mark.parametrize("place", ["run", "file/run"])
def test_workers_that_do_not_stop_hide_no_error(
    busy: threading.Thread, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"so that nothing can be written below it")
    with pytest.raises(InterruptedError):
        left_by_an_error(busy, Folder(tmp_path / place))


class Busy(Folder):
    """A folder that cannot be removed, with subfolders that cannot be removed."""

    def subfolder(self, name: str) -> Folder:
        return Busy(f"{self.address}/{name}")

    def remove(self) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")


def test_folders_of_ray_of_killed_drivers_are_removed(tmp_path: Path) -> None:
    for name in ("ray-8bfb631321cf524b/workers", "evaluation"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ray-notes.txt").write_text("kept")
    remove_ray_folders(Folder(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "ray-notes.txt"]


def test_a_folder_of_ray_that_stays_hides_no_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray Train refuses two to one workers before it starts anything."""
    job = Job(config={}, recipe="", place=str(tmp_path), owner="owner")
    group = WorkerGroup(min_workers=2, max_workers=1)
    assert isinstance(run_workers(job, Busy(tmp_path), group, 1), ValueError)
    told = f"distvae: {tmp_path}/ray-owner: could not be removed ([Errno 39] Directory not empty)"
    assert capsys.readouterr().err.startswith(told)
