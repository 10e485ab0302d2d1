"""What a process that trains a stack and the sweep's process say to each other."""

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import cast

import pytest

from distvae.tune.optuna_study import NextTrial
from distvae.tune.results import EndedEpoch
from distvae.tune.stacks.pictures import draw_in_processes
from distvae.tune.stacks.process import Conversation, Orders, StackReport, TrialStack
from distvae.tune.trial import TrialRun, Trials


class Countdown:
    """A stack whose trials have as many epochs as their number says, one at a time."""

    def __init__(self) -> None:
        self.members: dict[int, int] = {}
        self.halted: list[int] = []

    def follow(self, orders: Orders) -> None:
        self.halted += orders.halt
        for number in orders.halt:
            self.members.pop(number, None)
        for trial in orders.begin:
            self.members[trial.number] = trial.number

    def train(self) -> None:
        for number in self.members:
            self.members[number] -= 1

    def reports(self) -> Mapping[int, StackReport]:
        found = {}
        for number, left in list(self.members.items()):
            found[number] = StackReport(
                [EndedEpoch(number - left, 0.0)], None if left else {"figures": {}}
            )
            if not left:
                del self.members[number]
        return found


def conversation() -> tuple[Countdown, Connection, Thread]:
    """A process that talks in a thread, and our end of its connection."""
    stack, (ours, its) = Countdown(), Pipe()
    talk = Conversation(cast(TrialStack, stack), its)

    def go_on() -> None:
        with suppress(EOFError, OSError):  # our end was closed
            talk.go_on()

    thread = Thread(target=go_on, daemon=True)
    thread.start()
    return stack, ours, thread


def test_a_process_goes_on_without_an_answer_until_a_trial_ends() -> None:
    _, ours, thread = conversation()
    assert ours.recv() == {}
    ours.send(Orders([NextTrial(3, {}), NextTrial(5, {})]))
    reports = [ours.recv() for _ in range(3)]  # none of which was answered
    assert [sorted(report) for report in reports] == [[3, 5]] * 3
    assert reports[-1][3].last == {"figures": {}}
    for _ in reports:
        assert not ours.poll()
        ours.send(Orders())
    assert [sorted(ours.recv()) for _ in range(2)] == [[5], [5]]
    ours.close()
    thread.join(20)
    assert not thread.is_alive()


def test_a_trial_is_halted_by_an_answer_to_an_earlier_report() -> None:
    stack, ours, _ = conversation()
    ours.recv()
    ours.send(Orders([NextTrial(1, {}), NextTrial(10**9, {})]))
    ours.recv()
    ours.send(Orders(halt=[1, 10**9]))  # one of them has ended
    while ours.recv():
        ours.send(Orders())
    assert stack.halted == [1, 10**9]
    assert stack.members == {}


def test_a_process_whose_last_trial_is_halted_waits_for_the_next() -> None:
    _, ours, thread = conversation()
    ours.recv()
    ours.send(Orders([NextTrial(10**9, {})]))
    unanswered = [ours.recv() for _ in range(3)]
    ours.send(Orders(halt=[10**9]))
    unanswered = unanswered[1:]
    while report := ours.recv():
        unanswered.append(report)
    for _ in unanswered:
        ours.send(Orders())
    assert not ours.poll(0.1)
    assert thread.is_alive()
    ours.send(Orders([NextTrial(1, {})]))
    assert ours.recv()[1].epochs


def test_a_process_stays_when_one_trial_ends_and_the_other_is_halted() -> None:
    _, ours, thread = conversation()
    ours.recv()
    ours.send(Orders([NextTrial(1, {}), NextTrial(10**9, {})]))
    assert ours.recv()[1].last
    ours.send(Orders(halt=[10**9]))
    assert ours.recv() == {}
    assert not ours.poll(0.1)
    assert thread.is_alive()


def test_what_a_dead_process_was_to_draw_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        "distvae.tune.stacks.process.draw_and_log", lambda run: drawn.append(run.name)
    )
    trials = cast(Trials, None)
    runs = [TrialRun(trials, tmp_path, str(number), {}) for number in range(6)]
    talks = [conversation() for _ in range(2)]
    dead, end = Pipe()
    end.close()
    for _, ours, _ in talks:
        ours.recv()
    draw_in_processes([ours for _, ours, _ in talks] + [dead], runs, lambda: False)
    assert sorted(drawn) == ["1", "2", "3", "4", "5"]


def test_nothing_is_drawn_after_a_stop(tmp_path: Path) -> None:
    run = TrialRun(cast(Trials, None), tmp_path, "1", {})
    draw_in_processes([Pipe()[0]], [run], lambda: True)


PROGRAM = """
import sys
from distvae.tune.stacks.forked import start_process
def tell(word, connection):
    connection.send([word, *sorted(sys.modules)])
if __name__ == "__main__":
    process, ours = start_process(tell, "told")
    print(*ours.recv())
    process.join()
"""
"""Prints what was imported before a process of a stack began."""


def output_of(program: str, folder: Path) -> list[str]:
    """The words that a program prints."""
    file = folder / "program.py"
    file.write_text(program)
    told = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=True, timeout=300
    )
    return told.stdout.split()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports by itself")
def test_a_forked_process_has_imported_what_a_trial_needs(tmp_path: Path) -> None:
    wanted = {"told", "distvae.train.session", "distvae.tasks.evaluate", "matplotlib.figure"}
    assert wanted <= set(output_of(PROGRAM, tmp_path))


KILLED = """
import os, signal, threading, time
from multiprocessing.forkserver import _forkserver
from distvae.tune.stacks.forked import start_process
def tell(number, connection):
    connection.send(number)
def kill(server, at):
    time.sleep(at)
    os.kill(server, signal.SIGKILL)
if __name__ == "__main__":
    start_process(tell, 0)[1].recv()
    for number in range(1, 4):
        server = _forkserver._forkserver_pid
        os.kill(server, signal.SIGSTOP)
        threading.Thread(target=kill, args=(server, 0.03 * number)).start()
        print(start_process(tell, number)[1].recv())
"""
"""Starts processes while the one that forks them is being killed."""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports by itself")
def test_a_process_starts_though_the_one_that_forks_is_killed(tmp_path: Path) -> None:
    assert output_of(KILLED, tmp_path) == [str(number) for number in range(1, 4)]
