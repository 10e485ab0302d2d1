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
from tempfile import TemporaryDirectory

import pytest

from distvae.files.refusal import Refusal
from distvae.machines.session import ray_session
from distvae.train.run_folder import read_epochs
from tests.ports import free_port
from tests.processes import started
from tests.slowly import long
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
@pytest.mark.parametrize("number", [signal.SIGINT, *long(signal.SIGTERM, signal.SIGKILL)])
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
def test_a_training_that_is_asked_to_stop_keeps_what_it_did_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    words = command(PLAIN, ["bars", "data.rows=400", "train.epochs=20"], out, "--workers", "2")
    words.remove("--quiet")
    with TemporaryDirectory(prefix="d", dir="/tmp") as temporary:  # short, for Ray's sockets
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": temporary}
        with started(words, stderr=subprocess.PIPE, text=True, env=environment) as driver:
            while len(read_epochs(out)) < 2:
                assert driver.poll() is None, driver.communicate()
                time.sleep(0.02)
            processes = below(driver.pid)
            driver.send_signal(signal.SIGTERM)
            _, said = driver.communicate(timeout=300)
        assert driver.returncode == 128 + signal.SIGTERM, said
        assert "--resume continues from it" in said
        assert 2 <= len(read_epochs(out)) < 20
        again = [*words, "--resume"]
        done = subprocess.run(again, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        assert [epoch["epoch"] for epoch in read_epochs(out)] == list(range(1, 21))
        assert remaining(processes, 30) == []
        # Files of Ray's sessions and of torch's compiler.
        left = [path.name for path in Path(temporary).iterdir()]
        assert all(name.startswith(("ray", "torchinductor")) for name in left), left
    assert not [f for f in out.rglob("*") if "partial" in f.name or f.name.startswith("ray")]


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


@pytest.mark.slow
def test_what_is_no_ray_is_refused_and_a_stop_that_was_asked_for_before_is_heeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KeyboardInterrupt), ray_session(None, 1, stop=lambda: signal.SIGTERM):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{other.getsockname()[1]}")
        for address, message in (
            (f"127.0.0.1:{free_port()}", "nothing answers there"),
            ("auto", "is no Ray"),
        ):
            with pytest.raises(Refusal, match=message), ray_session(address, 1):
                pass
