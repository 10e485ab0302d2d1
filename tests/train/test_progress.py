"""The display of training: lines for a log, a bar in a notebook, JSON for programs.

IPython is not among the packages of the tests, so a stand-in with the same functions records what a
cell would show.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
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


def record(epoch: int, seconds: float) -> Epoch:
    """Return one of ten epochs."""
    return Epoch(
        epoch=epoch,
        epochs=10,
        train_objective=1.5,
        val_objective=1.0,
        val_bound=1.25,
        val_kl=3.0,
        val_hoyer=0.5,
        rate=1e-3,
        rows_per_second=1234.5,
        seconds=seconds,
        best=epoch == 1,
    )


def test_a_log_gets_a_plain_line_for_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("line", "frame")
    for epoch in (1, 2, 3):
        progress.epoch(record(epoch, 2.0 * epoch))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "val 1.2" in lines[0]
    assert "best" in lines[0]
    assert "0:14 left" in lines[2]


def test_a_search_over_states_tells_of_its_states_instead_of_hoyer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    details = {
        "sigma": 25.0625,
        "active": 12.3456,
        "active_p90": 20.0,
        "dead": 3.0,
        "substitutions": 20.25,
    }
    shown_epoch = replace(
        record(1, 7200.0), epoch=500, epochs=500, val_bound=-1234.567, details=details, best=True
    )
    Progress("line", "window").epoch(shown_epoch)
    line = capsys.readouterr().err.rstrip("\n")
    assert (
        "bound -1234.57  sigma 25.062  active 12.35  dead 3  substitutions 20.2  0:00 left  best"
        in line
    )
    assert len(line) <= 105


def test_programs_get_json_and_nobody_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("json", "frame").epoch(record(1, 2.0))
    Progress("quiet", "frame").epoch(record(1, 2.0))
    out, err = capsys.readouterr()
    assert json.loads(out) == record(1, 2.0).metrics()
    assert err == ""


def marks(times: list[float]) -> list[Mark]:
    """An epoch ends at each time but the first."""
    return [Mark(seconds, epoch) for epoch, seconds in enumerate(times)]


@given(st.integers(1, 50), st.floats(0.1, 100.0))
def test_a_steady_pace_is_that_of_every_epoch(count: int, seconds: float) -> None:
    times = [seconds * epoch for epoch in range(count + 1)]
    assert recent_pace(marks(times)) == pytest.approx(seconds)


@given(st.floats(0.5, 100.0), st.floats(0.5, 100.0), st.integers(1, 20))
def test_a_pace_that_changed_counts_once_it_has_lasted_as_long_as_the_one_before(
    before: float, after: float, count: int
) -> None:
    times = [before * epoch for epoch in range(count + 1)]
    changed = times[-1]
    while times[-1] - changed < max(changed, 60.0) + after:
        times.append(times[-1] + after)
    assert recent_pace(marks(times)) == pytest.approx(after, rel=1e-6)


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


ASKED = """
import sys
import time
from distvae.train.progress import stop_signals
with stop_signals() as stop:
    while True:
        print(stop(), flush=True)
        sys.stdin.readline()
"""


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


@dataclass
class Cell:
    """The output of a cell: its content, and the number of times it was replaced."""

    shown: str = ""
    replaced: int = 0

    def update(self, html: str) -> None:
        self.shown, self.replaced = html, self.replaced + 1


@dataclass
class Kernel:
    cells: list[Cell] = field(default_factory=list)

    def display(self, html: str, display_id: bool) -> Cell:
        self.cells.append(Cell(html))
        return self.cells[-1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found, package, shown = Kernel(), ModuleType("IPython"), ModuleType("IPython.display")
    vars(package)["get_ipython"] = lambda: SimpleNamespace(kernel=found)
    vars(shown).update(HTML=str, display=found.display)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return found


def epoch(number: int) -> Epoch:
    figures = {"train_objective": -1.0, "val_objective": -2.0, "val_bound": -3.0}
    return Epoch.read({"epoch": number, "seconds": number, **figures}, epochs=4)


def test_a_bar_is_replaced_and_nothing_is_printed(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("line", "row")
    for number in (1, 2, 3):
        progress.epoch(epoch(number))
    progress.end()
    (cell,) = kernel.cells
    assert cell.replaced == 3
    assert '<progress value="3" max="4">' in cell.shown
    assert "epoch 3/4" in cell.shown
    assert capsys.readouterr() == ("", "")


def test_text_beside_a_bar_is_no_markup() -> None:
    assert "<b>" not in progress_bar(1, 2, "<b>")
