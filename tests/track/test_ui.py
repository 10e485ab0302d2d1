"""Records in MLflow's own pages, in a real browser."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.browser import needs_browser, opened
from tests.machines.test_listeners import listeners, reachable
from tests.ports import answers, free_port
from tests.processes import started
from tests.track.records import sweep_tracker, tracker, train
from tests.train.processes import below

pytestmark = [pytest.mark.slow, needs_browser]
STARTING = "starting MLflow, which takes some ten seconds\n"


@pytest.fixture
def recorded(root: Path) -> Path:
    """Record a sweep of two trials with epochs and figures, where commands find it."""
    record = sweep_tracker(root, **{"metric.hoyer": "max", "axis.model.latent": "8, 16"})
    record.begin()
    for name, hoyer, latent in (("vae", 0.31, 8), ("sdm", 0.47, 16)):
        trial = tracker(root, f"sweep/trials/{name}", record.folder)
        trial.params = {**trial.params, "model.latent": latent}
        train(trial, 1, 2)
        trial.figures({"hoyer": hoyer})
        trial.close()
    record.close()
    (root / "runs").mkdir()
    for path in root.glob("mlflow.db*"):
        path.rename(root / "runs" / path.name)
    return root


def hear() -> None:
    """Hear Ctrl-C also where the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(port: int) -> list[str]:
    return [sys.executable, "-m", "distvae", "ui", "--port", str(port)]


def ui(folder: Path, port: int) -> "AbstractContextManager[subprocess.Popen[str]]":
    """Start the command."""
    pipe = subprocess.PIPE
    return started(command(port), cwd=folder, stdout=pipe, text=True, preexec_fn=hear)


def end(server: "subprocess.Popen[str]", number: signal.Signals, port: int) -> None:
    """End the server by a signal, with all processes that hold its output."""
    server.send_signal(number)
    server.communicate(timeout=120)
    assert server.returncode == 128 + number
    assert not answers(port)


def test_a_server_that_ends_while_it_starts_is_said_and_one_that_starts_can_be_ended(
    recorded: Path,
) -> None:
    with ui(recorded, port := free_port()) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == STARTING
        time.sleep(1)
        end(server, signal.SIGTERM, port)
    (recorded / "sitecustomize.py").write_text(
        "import os, sys\nif 'mlflow' in sys.orig_argv: os.write(2, b'no server\\n'), os._exit(1)\n"
    )
    path = f"{recorded}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command(port),
        cwd=recorded,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, STARTING)
    message = "distvae: MLflow's server ended with 1; its messages stand above"
    assert done.stderr.splitlines() == ["no server", message]


def test_every_link_of_a_sweep_leads_to_its_trials(recorded: Path) -> None:
    """The charts of a sweep have parallel coordinates of both trials, and another page compares
    them. The links are served
    to this machine alone, and by the time when they are printed.
    """
    lines: list[str] = []
    with ui(recorded, port := free_port()) as server:
        assert server.stdout is not None
        while not (lines and lines[-1].startswith("ready")):
            lines.append(server.stdout.readline())
            assert lines[-1]
            assert "http" not in lines[-1] or answers(port)
        assert (lines[0], lines[-1]) == (STARTING, "ready; Ctrl-C ends the server\n")
        found = listeners([server.pid, *below(server.pid)])
        assert found
        assert not [listener for listener in found if reachable(listener)]
        names = ["vae", "sdm"]
        charts = [*names, "Parallel Coordinates", "model.latent", "sparsity/hoyer"]
        compared = [*names, "0.31", "Comparing 2 Runs from 1 Experiment"]
        links = re.findall(r"http://\S+", "".join(lines))
        for link, texts in zip(links, [["here"], charts, compared], strict=True):
            with opened(link) as page:
                for text in texts:
                    page.get_by_text(text, exact=True).first.wait_for()
                assert "not valid JSON" not in page.inner_text("body"), link
        end(server, signal.SIGINT, port)
