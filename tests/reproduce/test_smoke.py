"""A smoke run of every published table, and one of the command."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from distvae.files.refusal import Refusal
from distvae.reproduce.rows import read_rows
from distvae.reproduce.run import Reproduction, Work
from distvae.reproduce.table import compare_rows, read_table, table_names
from distvae.tasks.scores import available_metrics
from distvae.tune.results import STOPPED
from distvae.tune.sweep import SweepOptions
from distvae.tune.trial import Trials, run_trial
from tests.slowly import long

pytestmark = pytest.mark.slow
QUIET: dict[str, Any] = {"train.threads": 1, "eval.processes": 1, "train.device": "cpu"}


KINDS = ("gaps", "house", "inpainting", "restoration", "sdm-speech", "sprites", "vsc-probe")
"""A table of each kind of data and of rows. The tables left differ from them in settings."""


@pytest.mark.parametrize("name", [*KINDS, *long(*(n for n in table_names() if n not in KINDS))])
def test_smoke(name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        work = Work.of(read_table(name, "smoke"), str(real_data))
    except Refusal as error:
        pytest.skip(str(error))
    if name == "sdm-speech" and not available_metrics(["pesq_wb"]):
        pytest.skip("pesq is not installed")
    space = work.space().pinned(QUIET)
    for number, row in enumerate(space.rows, 1):
        *_, last = run_trial(Trials(space, tmp_path / "trials"), number, {"row": row})
        assert "figures" in last, last
        assert set(space.metrics) <= last["figures"].keys()
        for figure in space.rows[row].published:
            assert f"{figure}_difference" in last["figures"]
    options = SweepOptions(quiet=True)
    Reproduction(work, tmp_path, tmp_path / "rows", options=options).evaluate_baselines()
    lines = compare_rows(work.table, tmp_path / "rows")
    judged = {line.row for line in lines if line.obtained is not None}
    left_out = set() if find_spec("bm3d") else {"bm3d"}
    assert judged == {
        entry.name for entry in work.table.baselines if entry.baseline not in left_out
    }


def begun(folder: Path, *words: str, row: str = "exact") -> subprocess.Popen[str]:
    """Start a process that trains rows of bars in a folder."""
    typed = ["reproduce", "bars", "--scale", "smoke", "--only", row, "--out", f"{folder}/bars"]
    return subprocess.Popen(
        [sys.executable, "-m", "distvae", *typed, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
        cwd=folder,
    )


def command(folder: Path, *words: str, row: str = "exact", code: int = 0) -> tuple[str, str]:
    """Run such a process until it has ended, and return its output and its messages."""
    process = begun(folder, *words, row=row)
    said, errors = process.communicate()
    assert process.returncode == code, errors
    return said, errors


def test_the_command_ends_with_a_comparison_and_rows_are_added_when_it_goes_on(
    tmp_path: Path,
) -> None:
    said, messages = command(tmp_path)
    assert "on one core" in messages
    assert "exact" in said
    assert "reliability" in said
    (before,) = read_rows(tmp_path / "bars" / "rows", "bars")
    assert (before.name, before.scale) == ("exact", "smoke")
    assert "1 trial ended earlier" in command(tmp_path, "--resume", row="fitness")[1]
    assert read_rows(tmp_path / "bars" / "rows", "bars")[0].figures == before.figures
    page = (tmp_path / "bars" / "report.html").read_text()
    assert "How close do the rows of bars come to the published figures" in page
    assert "distvae reproduce bars --scale smoke" in page
    rows = read_rows(tmp_path / "bars" / "rows", "bars")
    assert [row.name for row in rows] == ["exact", "fitness"]
    lines = json.loads((tmp_path / "bars" / "comparison.json").read_text())
    assert {line["row"] for line in lines if line["obtained"] is not None} == {"exact", "fitness"}
    _, refused = command(tmp_path, "--resume", "--seeds", "2", code=2)
    assert "a sweep with command 'distvae reproduce bars --scale smoke', not" in refused
    assert read_rows(tmp_path / "bars" / "rows", "bars") == rows


@pytest.mark.long
def test_a_table_that_is_stopped_keeps_what_has_ended_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = begun(tmp_path, "--concurrent", "1", row="*")
    assert process.stderr is not None
    assert any(line.startswith("trial 1/2: fitness: recovered") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    assert process.returncode == 130, errors
    assert said.splitlines()[-1] == STOPPED
    (before,) = read_rows(tmp_path / "bars" / "rows", "bars")
    assert before.name == "fitness"
    assert "1 trial ended earlier" in command(tmp_path, "--resume", row="exact")[1]
    exact, fitness = read_rows(tmp_path / "bars" / "rows", "bars")
    assert exact.name == "exact"
    assert fitness == before
