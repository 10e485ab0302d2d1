"""Records in MLflow's own pages, in a real browser."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from distvae.tasks import pictures
from distvae.train.run import read_epochs
from tests.browser import needs_browser, opened
from tests.machines.test_listeners import listeners, reachable
from tests.ports import answers, free_port
from tests.processes import started
from tests.track.records import sweep_tracker, tracker, train
from tests.train.processes import below

pytestmark = [pytest.mark.slow, needs_browser]
SPACE = {
    "base": "bars",
    "fixed": {"data.rows": 200, "train.epochs": 1, "train.device": "cpu"},
    "metrics": {"bound": "max", "hoyer": "max"},
    "trials": 2,
    "search": "grid",
    "axes": [{"key": "train.rate", "choice": [0.0123, 0.0456]}],
}


@pytest.fixture
def recorded(root: Path) -> Path:
    """Record a sweep of two trials with epochs, figures and a picture, below runs/."""
    record = sweep_tracker(root, **{"metric.hoyer": "max"})
    record.begin()
    folder = record.folder
    for name, hoyer in (("vae", 0.31), ("sdm", 0.47)):
        trial = tracker(root, f"sweep/trials/{name}", folder)
        for n in (1, 2, 3):
            train(trial, n, val_bound=-10.0 / n)
        seen = trial.folder / "evaluation"
        seen.mkdir()
        curves = pictures.learning(read_epochs(trial.folder), "frame", name)
        pictures.save(curves, seen / "learning.png")
        trial.figures({"hoyer": hoyer})
        trial.close()
    record.close()
    return as_runs(root)


def as_runs(root: Path) -> Path:
    """Place the records where commands find them, below runs/."""
    (root / "runs").mkdir()
    for path in root.glob("mlflow.db*"):
        path.rename(root / "runs" / path.name)
    return root


def hear() -> None:
    """Hear Ctrl-C also where the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def served(folder: Path, end: signal.Signals) -> Iterator[list[str]]:
    """Yield the links that `distvae ui` prints, which are served by then to this machine
    alone; end it by a signal.
    """
    port = free_port()
    command = [sys.executable, "-m", "distvae", "ui", "--port", str(port)]
    with started(command, cwd=folder, stdout=subprocess.PIPE, text=True, preexec_fn=hear) as server:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            assert "http" not in line or answers(port)
            if line.startswith("ready"):
                break
        assert lines[0].startswith("starting MLflow")
        assert lines[-1] == "ready; Ctrl-C ends the server\n"
        found = listeners([server.pid, *below(server.pid)])
        assert found
        assert not [listener for listener in found if reachable(listener)]
        yield re.findall(r"http://\S+", "".join(lines))
        server.send_signal(end)
        server.communicate(timeout=120)
    assert server.returncode == 128 + end
    assert not answers(port)


def follow(links: list[str], shown: dict[str, list[str]]) -> None:
    """Open every link, and find what belongs to its page."""
    for link, (page_name, texts) in zip(links, shown.items(), strict=True):
        with opened(link) as page:
            for text in texts:
                page.get_by_text(text, exact=True).first.wait_for()
            assert "not valid JSON" not in page.inner_text("body"), page_name
            if page_name == "compare":
                page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()


@pytest.mark.long
def test_every_link_of_a_sweep_leads_to_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of two trials: its charts show both, and they are compared side by side."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(SPACE))
    command = [sys.executable, "-m", "distvae", "tune", "rates.yaml", "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True)
    names = ["1 rate 0.0123", "2 rate 0.0456"]
    shown = {"experiments": ["rates"], "charts": names, "compare": [*names, "0.0123", "0.0456"]}
    with served(tmp_path, signal.SIGTERM) as links:
        follow(links, shown)


def test_a_server_that_ends_while_it_starts_is_said(root: Path) -> None:
    (root / "sitecustomize.py").write_text(
        "import os, sys\nif 'mlflow' in sys.orig_argv: os.write(2, b'no server\\n'), os._exit(1)\n"
    )
    command = [sys.executable, "-m", "distvae", "ui", "--port", str(free_port())]
    done = subprocess.run(
        command,
        cwd=as_runs(root),
        env=os.environ | {"PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == "starting MLflow, which takes some ten seconds\n"
    assert done.stderr.splitlines() == [
        "no server",
        "distvae: MLflow's server ended with 1; its messages stand above",
    ]


@pytest.mark.parametrize(
    "end", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_server_that_is_starting_can_be_ended(root: Path, end: signal.Signals) -> None:
    port = free_port()
    command = [sys.executable, "-m", "distvae", "ui", "--port", str(port)]
    with started(
        command, cwd=as_runs(root), stdout=subprocess.PIPE, text=True, preexec_fn=hear
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("starting MLflow")
        time.sleep(1)
        server.send_signal(end)
        server.communicate(timeout=120)  # until all that hold its output have ended
    assert server.returncode == 128 + end
    assert not answers(port)


def test_trials_are_chosen_compared_and_looked_at(recorded: Path) -> None:
    """Follow the links, open the experiment, compare two trials, and look at a picture among a
    run's artifacts.
    """
    from playwright.sync_api import expect

    names = ["vae", "sdm"]
    with served(recorded, signal.SIGINT) as links:
        follow(links, {"experiments": ["here"], "charts": names, "compare": [*names, "0.31"]})
        with opened(links[0].partition("#")[0]) as page:
            page.get_by_role("button", name="Model training").click()
            page.get_by_role("link", name="Experiments").first.click()
            page.get_by_role("link", name="here", exact=True).click()
            page.locator(".ag-row button").first.click()  # unfolds the sweep
            for name in names:
                row = page.locator(".ag-row", has=page.get_by_role("link", name=name, exact=True))
                row.locator("input.ag-checkbox-input").check()
            page.get_by_role("button", name="Compare").click()
            page.get_by_text("Comparing 2 Runs").wait_for()
            for shown in ("model.latent", "bound/val_bound", "0.31", "0.47"):
                expect(page.get_by_text(shown, exact=True).first).to_be_attached()
            page.locator("a[href*='/runs/']").first.click()
            page.get_by_role("tab", name="Artifacts").or_(
                page.get_by_role("link", name="Artifacts")
            ).first.click()
            page.get_by_text("evaluation", exact=True).first.click()
            page.get_by_text("learning.png", exact=True).first.click()
            picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
            picture.wait_for()
            assert picture.evaluate("picture => picture.naturalWidth") > 100
