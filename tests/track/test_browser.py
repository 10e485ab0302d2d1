"""Records in MLflow's own pages, in a real browser."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distvae.tasks import pictures
from distvae.track import Store, Tracker
from tests.browser import needs_browser, opened
from tests.ports import answers, free_port
from tests.processes import started
from tests.track.records import RECORD, tracker

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def recorded(root: Path) -> Path:
    """Record a sweep of two trials with epochs, figures and a picture, below runs/."""
    folder = root / "sweep"
    folder.mkdir()
    tags = {"kind": "sweep", "folder": str(folder)}
    record = Tracker(Store.find(root), "speech", "night", folder, {"metric.hoyer": "max"}, tags)
    record.create()
    for name, hoyer in (("vae", 0.31), ("sdm", 0.47)):
        trial = tracker(root, f"sweep/trials/{name}", folder, "speech")
        epochs = [replace(RECORD, epoch=n, val_bound=-10.0 / n) for n in (1, 2, 3)]
        for epoch in epochs:
            trial.epoch(epoch)
        seen = trial.folder / "evaluation"
        seen.mkdir()
        curves = pictures.learning_curves([epoch.metrics() for epoch in epochs], "frame", name)
        pictures.save(curves, seen / "learning.png")
        trial.evaluation({"hoyer": hoyer}, seen)
        trial.close()
    record.close()
    (root / "runs").mkdir()
    for path in root.glob("mlflow.db*"):
        path.rename(root / "runs" / path.name)
    return root


@pytest.fixture
def address(recorded: Path) -> Iterator[str]:
    """Return the address of a running `distvae ui`."""
    port = free_port()
    command = [sys.executable, "-m", "distvae", "ui", "--port", str(port)]
    with started(
        command, cwd=recorded, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as server:
        until = time.monotonic() + 240
        while not answers(port):
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    assert not answers(port)


def test_trials_are_chosen_compared_and_looked_at(address: str) -> None:
    """Open the experiment, compare two trials, and look at a picture among a run's artifacts."""
    from playwright.sync_api import expect

    with opened(address) as page:
        page.get_by_role("button", name="Model training").click()
        page.get_by_role("link", name="Experiments").first.click()
        page.get_by_role("link", name="speech", exact=True).click()
        page.locator(".ag-row button").first.click()  # unfolds the sweep
        for name in ("vae", "sdm"):
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
