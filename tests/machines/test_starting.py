"""A local Ray starts closed to others, or says in a sentence that it cannot; it can be stopped, and
leaves nothing.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.session import ray_session
from tests.ports import free_port
from tests.processes import started
from tests.train.commands import PLAIN, command
from tests.train.processes import below, remaining

LATE = """
import os, pathlib, time
here, words = pathlib.Path(__file__).parent, pathlib.Path("/proc/self/cmdline").read_text()
if "runtime_env/agent/main.py" in words:
    (here / f"met-{os.getpid()}").touch()
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(0)
"""
"""What each Python process imports at its start: an agent of Ray comes up only to end with Ray."""
AGENTS_SECONDS = 90
"""Seconds in which Ray's agents end whose Ray was killed: they try for a minute to report it."""
SESSION = """
import os
from distvae.files.refusal import Refusal
from distvae.machines.session import ray_session
with ray_session(None, 1) as session:
    import ray
    (node,) = session.nodes()
    print(node["NodeManagerAddress"])
    print(os.environ["RAY_TMPDIR"])
    print(ray.get(ray.remote(lambda: os.environ["RAY_AUTH_MODE"]).remote(), timeout=60))
    try:
        with ray_session(None, 1): pass
    except Refusal as refusal: print(refusal)
    print({c.laddr.ip.removeprefix("::ffff:") for p in psutil.Process().children(recursive=True)
           for c in p.net_connections("tcp") if c.status == "LISTEN"})
with ray_session(None, 1) as another:
    print(len(another.nodes()))
"""


@pytest.mark.slow
def test_a_local_ray_is_on_loopback_with_a_token_and_leaves_no_folder() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-c", f"import psutil\n{SESSION}"]
    done = subprocess.run(words, env=bare, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    address, folder, mode, refused, listening, machines_of_another = done.stdout.splitlines()
    assert (address, mode) == ("127.0.0.1", "token")
    assert refused == "Ray: this program is connected to one already; ray.shutdown() first expected"
    assert listening == "{'127.0.0.1'}"
    assert machines_of_another == "1", "a second Ray starts in the same process"
    assert not Path(folder).exists()


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose processes of Ray never come up."""
    (tmp_path / "sitecustomize.py").write_text(LATE)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', Path.cwd())}"
    monkeypatch.setenv("PYTHONPATH", path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.long) for each in (15, 9))],
)
def test_a_signal_ends_a_start_and_all_processes(number: int, late: Path, tmp_path: Path) -> None:
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    with started(words, stderr=subprocess.PIPE, text=True) as training:
        while not list(late.glob("met-*")):
            assert training.poll() is None
            time.sleep(0.1)
        processes = below(training.pid)
        training.send_signal(number)
        _, errors = training.communicate(timeout=300)
    if number == signal.SIGKILL:
        assert training.returncode == -number
    else:
        assert training.returncode == 128 + number
        assert errors.endswith("distvae: interrupted\n")
    assert remaining(processes, AGENTS_SECONDS if number == signal.SIGKILL else 30) == []
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ray_ends_with_a_training_that_is_killed(tmp_path: Path) -> None:
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    endless = [*words, "train.epochs=100000"]
    with started(endless, stderr=subprocess.PIPE, text=True) as training:
        while not (tmp_path / "run/last.json").exists():
            assert training.poll() is None, training.communicate()
            time.sleep(0.1)
        processes = below(training.pid)
        training.kill()
    assert remaining(processes, AGENTS_SECONDS) == []
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_ray_that_cannot_start_is_told_of_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE.replace("parent = os.getppid()", "os._exit(7)"))
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', Path.cwd())}"
    monkeypatch.setenv("PYTHONPATH", path)
    words = command(PLAIN, ["bars", "data.rows=200"], tmp_path / "run", "--workers", "1")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("distvae: Ray: does not start on this machine")
    assert "expected" in last
    assert not (tmp_path / "run").exists()


def test_a_stop_that_was_asked_for_before_is_heeded() -> None:
    with pytest.raises(KeyboardInterrupt), ray_session(None, 1, stop=lambda: signal.SIGTERM):
        pass


def test_an_address_where_nothing_listens_is_refused() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Refusal, match="nothing answers there"), ray_session(address, 1):
        pass


@pytest.mark.slow
def test_another_program_at_an_address_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Refusal, match="is no Ray"), ray_session(address, 1):
            pass
