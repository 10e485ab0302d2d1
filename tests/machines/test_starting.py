"""A local Ray starts on a slow machine, or says in a sentence that it cannot; it can be stopped,
and leaves nothing.
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.session import ray_head
from distvae.machines.session.local_ray import local_ray
from distvae.machines.session.ray_session import OBJECT_STORE_BYTES, SETTINGS, never_stop
from tests.processes import started
from tests.train.commands import PLAIN, command
from tests.train.processes import below, remaining, titled

FATE = """
import os, pathlib, socket, time
here, words = pathlib.Path(__file__).parent, pathlib.Path("/proc/self/cmdline").read_text()
if (here / "fate").exists():
    name, what, times = (here / "fate").read_text().split()
    if name in words:
        (here / f"met-{os.getpid()}").touch()
        if len(list(here.glob("met-*"))) <= int(times):
            if what == "dies":
                os._exit(7)
            if what == "robbed":
                port = int(words.partition("--runtime-env-agent-port=")[2].partition("\\0")[0])
                taken = socket.create_server(("127.0.0.1", port))
                what = "3"
            time.sleep(float(what))
"""
"""What each Python process imports at its start: one of Ray's dies, is late, or finds its port
taken, the first times that it is started.
"""
AGENTS = ["dashboard/agent.py", "runtime_env/agent/main.py"]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a name that is short enough for sockets, and settings for
    a Ray.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-test-"))
    (folder / "sitecustomize.py").write_text(FATE)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', Path.cwd())}"
    )
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    yield folder
    deadline = time.monotonic() + ray_head.REMOVAL_SECONDS
    while list(folder.glob("distvae-ray-*")):
        assert time.monotonic() < deadline, "folders of Rays that have ended"
        time.sleep(0.1)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("agent", [AGENTS[0], pytest.param(AGENTS[1], marks=pytest.mark.long)])
def test_a_late_agent_holds_nobody_up(agent: str, place: Path) -> None:
    late = "1000" if agent == AGENTS[0] else "20"  # Ray's node process would abort after 15 s
    (place / "fate").write_text(f"{agent} {late} 9")
    with local_ray(1, OBJECT_STORE_BYTES, never_stop) as local:
        assert stat.S_IMODE(local.folder.parent.stat().st_mode) == 0o700
        assert len(list(place.glob("met-*"))) == 1, "the first attempt stands"


@pytest.mark.long
def test_a_node_process_that_dies_is_started_again(place: Path) -> None:
    (place / "fate").write_text(f"{AGENTS[1]} dies 1")
    with local_ray(1, OBJECT_STORE_BYTES, never_stop) as local:
        assert local.address.startswith("127.0.0.1:")


@pytest.mark.slow
def test_a_port_that_another_program_takes_meanwhile_is_replaced(place: Path) -> None:
    (place / "fate").write_text(f"{AGENTS[1]} robbed 1")
    with local_ray(1, OBJECT_STORE_BYTES, never_stop) as local:
        assert len(list(place.glob("met-*"))) == 2, "the second attempt stands"
        assert not local.has_ended()


@pytest.mark.slow
def test_a_ray_that_cannot_start_is_told_of_in_a_sentence(place: Path, tmp_path: Path) -> None:
    (place / "fate").write_text(f"{AGENTS[1]} dies 9")
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=500)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("distvae: Ray: does not start on this machine")
    assert "expected" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_signal_is_heard_while_ray_starts(number: int, place: Path, tmp_path: Path) -> None:
    (place / "fate").write_text(f"{AGENTS[1]} 1000 9")
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    with started(words, stderr=subprocess.PIPE, text=True) as training:
        while not list(place.glob("met-*")):
            assert training.poll() is None
            time.sleep(0.1)
        processes = below(training.pid)
        training.send_signal(number)
        _, errors = training.communicate(timeout=300)
    assert training.returncode == 128 + number
    assert errors.endswith("distvae: interrupted\n")
    assert remaining(processes, 30) == []
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ray_ends_with_a_process_that_is_killed(place: Path, tmp_path: Path) -> None:
    (place / "fate").write_text(f"{AGENTS[1]} 1000 9")
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    with started(words, stderr=subprocess.PIPE) as training:
        while not list(place.glob("met-*")):
            assert training.poll() is None
            time.sleep(0.1)
        processes = below(training.pid)
        training.kill()
    assert remaining(processes, 30) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("ray::RuntimeEnvAgent", "Ray's raylet ended", marks=pytest.mark.long),
        (f"{sys.executable}\0-P", "Ray was killed"),  # the program that holds Ray's processes
    ],
)
def test_a_ray_that_ends_is_told_of_and_the_training_can_go_on(
    name: str, message: str, place: Path, tmp_path: Path
) -> None:
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    endless = [*words, "train.epochs=100000"]
    with started(endless, stderr=subprocess.PIPE, text=True, start_new_session=True) as training:
        while not (tmp_path / "run/last.json").exists():
            assert training.poll() is None, training.communicate()
            time.sleep(0.1)
        processes = below(training.pid)
        (victim,) = titled(name, processes)
        os.kill(victim, signal.SIGKILL)
        _, errors = training.communicate(timeout=120)
    assert training.returncode == 1
    told = f"distvae: {message}; run the same command again, with --resume if it had saved anything"
    assert errors.splitlines().count(told) == 1, errors
    assert remaining(processes, 30) == []
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_stop_that_was_asked_for_before_is_heeded(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt), local_ray(1, OBJECT_STORE_BYTES, lambda: signal.SIGTERM):
        pass


@pytest.mark.slow
def test_a_program_may_import_ray_before_and_not_be_connected_to_another(place: Path) -> None:
    program = """
import os, ray
from distvae.files.refusal import Refusal
from distvae.machines.session.ray_session import ray_session
with ray_session(None, 1) as session:
    print(len(session.nodes()))
    try:
        with ray_session(None, 1): pass
    except Refusal as refusal: print(refusal)
    print(len(session.nodes()))
"""
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=without, capture_output=True, text=True, timeout=300
    )
    refused = "Ray: this program is connected to one already; ray.shutdown() first expected"
    assert done.stdout.splitlines() == ["1", refused, "1"], done.stderr


WRITER = "import os, sys\nwhile True: os.makedirs(sys.argv[1] + '/logs', exist_ok=True)"
"""A process that makes a folder again whenever it is removed."""


def test_a_folder_is_removed_though_processes_of_the_group_write_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    program = f"""
import pathlib, subprocess, sys
from distvae.machines.session.ray_head import end_group_and_remove
subprocess.Popen([sys.executable, "-c", {WRITER!r}, {str(folder)!r}], stdout=subprocess.DEVNULL)
while not pathlib.Path({str(folder)!r}).exists(): pass
end_group_and_remove(pathlib.Path({str(folder)!r}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, start_new_session=True, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not folder.exists()


def test_what_a_killed_ray_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    held, lock = ray_head.make_private_folder(tmp_path)
    left, other = ray_head.make_private_folder(tmp_path)
    fcntl.flock(other, fcntl.LOCK_UN)
    (left / "ray").mkdir()
    (tmp_path / "distvae-ray-being-made").mkdir()
    (tmp_path / "distvae-other").mkdir()
    ray_head.remove_abandoned_folders(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        held.name,
        "distvae-ray-being-made",
        "distvae-other",
    }
    os.close(lock)
    os.close(other)


@pytest.mark.parametrize(("folder", "used"), [("/t", "/t"), (f"/{60 * 't'}", f"{os.sep}tmp")])
def test_sockets_have_paths_that_are_short_enough(
    folder: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    assert ray_head.temporary_folder() == Path(used)


def test_a_refusal_names_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distvae.machines.session.local_ray.PROGRAM", Path(os.devnull))
    with (
        pytest.raises(Refusal, match="--address of a Ray that runs"),
        local_ray(1, OBJECT_STORE_BYTES, never_stop),
    ):
        pass
