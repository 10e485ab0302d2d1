"""The display of training: lines for a log, a bar in a notebook, JSON for programs; and the signals
that ask a training to stop.

IPython is not among the packages of the tests, so a stand-in with the same functions records what a
cell would show.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.train.loop import Epoch
from distvae.train.progress import (
    ECHO_SECONDS,
    Mark,
    Progress,
    format_duration,
    progress_bar,
    recent_pace,
    stop_signals,
)

FIGURES = {"train_objective": 1.5, "val_objective": 1.0, "val_bound": 1.25, "val_kl": 3.0}
RECORD = Epoch.read({"epoch": 1, "seconds": 2.0, **FIGURES}, epochs=10)


def test_a_log_gets_plain_lines_programs_get_json_and_nobody_gets_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress("line", "frame")
    for epoch in (1, 2, 3):
        progress.epoch(replace(RECORD, epoch=epoch, seconds=2.0 * epoch, best=epoch == 1))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "val 1.0 bound 1.2" in lines[0]
    assert "best" in lines[0]
    assert "0:14 left" in lines[2]
    Progress("json", "frame").epoch(RECORD)
    Progress("quiet", "frame").epoch(RECORD)
    out, err = capsys.readouterr()
    assert json.loads(out) == RECORD.metrics()
    assert err == ""
    details = {"sigma": 25.0625, "active": 12.3456, "dead": 3.0, "substitutions": 20.25}
    searched = replace(RECORD, epoch=500, epochs=500, val_bound=-1234.567, details=details)
    Progress("line", "window").epoch(searched)
    line = capsys.readouterr().err.rstrip("\n")
    assert "bound -1234.57  sigma 25.062  active 12.35  dead 3  substitutions 20.2  0:00" in line
    assert len(line) <= 105


@given(st.floats(0.5, 100.0), st.floats(0.5, 100.0), st.integers(1, 20))
def test_a_pace_that_changed_counts_once_it_has_lasted_as_long_as_the_one_before(
    before: float, after: float, count: int
) -> None:
    times = [before * epoch for epoch in range(count + 1)]

    def pace() -> float:
        return recent_pace([Mark(seconds, epoch) for epoch, seconds in enumerate(times)])

    assert pace() == pytest.approx(before)
    changed = times[-1]
    while times[-1] - changed < max(changed, 60.0) + after:
        times.append(times[-1] + after)
    assert pace() == pytest.approx(after, rel=1e-6)


@given(st.integers(0, 10**6))
def test_a_duration_reads_back_as_its_seconds(seconds: int) -> None:
    total = 0
    for part in format_duration(seconds).split(":"):
        total = 60 * total + int(part)
    assert total == seconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_kept_for_the_loop_to_see_and_the_handlers_return(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop() == number
    assert signal.getsignal(number) is before


CLOSED = """
import fcntl, signal, sys, termios
from distvae.train.progress import stop_signals
signal.signal(signal.SIGHUP, signal.{})
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
with stop_signals() as stop:
    print("ready", flush=True)
    sys.stdin.readline()
    if stop():
        print("saved", file=sys.stderr)
    raise SystemExit(128 + stop())
"""
ASKED = """
import sys
from distvae.train.progress import stop_signals
with stop_signals() as stop:
    while True:
        print(stop(), flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_signal_that_is_passed_on_again_is_the_same_and_a_later_one_quits() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"  # before "stopping"
        process.send_signal(signal.SIGTERM)
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == f"{signal.SIGINT:d}\n"
        time.sleep(ECHO_SECONDS)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disposition", "code"), [("SIG_DFL", 128 + signal.SIGHUP), ("SIG_IGN", 128)]
)
def test_a_terminal_that_is_closed_asks_to_stop_unless_that_is_ignored(
    disposition: str, code: int
) -> None:
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSED.format(disposition)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=end,
        start_new_session=True,
        text=True,
    )
    os.close(end)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    os.close(terminal)
    process.communicate("\n", timeout=60)
    assert process.returncode == code


def test_a_notebook_has_one_bar_which_is_replaced_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, shown = list[str](), list[str]()

    def display(html: str, display_id: bool) -> SimpleNamespace:
        cells.append(html)
        return SimpleNamespace(update=shown.append)

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(package)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    vars(module).update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    progress = Progress("line", "row")
    for number in (1, 2, 3):
        progress.epoch(replace(RECORD, epoch=number, epochs=4))
    progress.end()
    assert (len(cells), len(shown)) == (1, 3)
    assert '<progress value="3" max="4">' in shown[-1]
    assert "epoch 3/4" in shown[-1]
    assert capsys.readouterr() == ("", "")
    assert "<b>" not in progress_bar(1, 2, "<b>")
