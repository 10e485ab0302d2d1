"""A lost or silent machine is reported once, with the machines that the training waits for."""

import os
import signal
import time
from collections.abc import Callable, Sequence

import pytest

from distvae.machines import node_watch
from distvae.machines.cluster import Machine, live_machines
from distvae.machines.node_watch import NodeWatch, Outlook, Pings, SilenceWatch, workers_that_fit
from distvae.machines.session import ray_session
from distvae.machines.worker_group import WorkerGroup
from distvae.train.documents import Event
from tests.ray_cluster import cluster
from tests.train.processes import stopped

A, B, C = (Machine(f"10.0.0.{k}", 7000, cpus=2.0) for k in (1, 2, 3))
HEAD = Machine("10.0.0.9", 7000, is_head=True)


def started(machines: Sequence[str], copies: Sequence[str]) -> Event:
    """Training with workers and copies on machines of these ids."""
    workers = [f"10.0.0.0-{name}" for name in machines]
    holders = [f"10.0.0.0-{name}" for name in copies]
    start = Event(
        epoch=0,
        batch=0,
        workers=len(workers),
        leaving=0,
        time=0,
        rows=[],
        bytes=[],
        machines=workers,
        copies=holders,
    )
    return start


def outlook(workers: str = "2", lacks: str = "", gpus: float = 0.0) -> Outlook:
    """Return the outlook of a training on the machines aa and bb, with copies on bb and cc."""
    return Outlook(
        WorkerGroup.parse(workers, gpus),
        2,
        lambda: [started(["aa", "bb"], ["bb", "cc"])],
        lambda: lacks,
    )


def test_machines_that_are_lost_and_have_joined_are_told_once() -> None:
    machines = {"aa": A, "bb": B}
    watch = NodeWatch(lambda: machines, outlook())
    assert watch.describe_changes() == []
    del machines["bb"]
    told = [
        "machine 10.0.0.2 is lost; training waits for machines with 2 more CPUs, which 1 worker"
        " needs"
    ]
    assert watch.describe_changes() == told
    assert watch.describe_changes() == []
    machines["cc"] = C
    assert watch.describe_changes() == ["machine 10.0.0.3 has joined"]


def test_missing_resources_are_told_once() -> None:
    lacks = "--workers: 4 workers need 4 CPUs, and Ray has 2"
    watch = NodeWatch(lambda: {"aa": A}, outlook(lacks=lacks))
    assert watch.describe_changes() == [f"{lacks}; training continues when they fit"]
    assert watch.describe_changes() == []


def test_a_silent_machine_is_told_once_and_again_when_it_answers() -> None:
    machines, answering, now = {"aa": A, "bb": B}, {"aa", "bb"}, [0.0]
    watch = SilenceWatch(lambda _: answering, outlook("1:2"), lambda: now[0])
    told: dict[float, list[str]] = {}
    for second in range(20):
        now[0] = second
        if second in (3, 14):
            answering ^= {"bb"}
        if changes := watch.describe_changes(machines):
            told[second] = changes
    assert told == {
        7: [
            "machine 10.0.0.2 has not answered for 5 s; training waits until it answers or Ray"
            " declares it lost, and then goes on with 1 worker"
        ],
        14: ["machine 10.0.0.2 answers again"],
    }


def test_a_machine_that_is_no_longer_listed_is_forgotten() -> None:
    now = [0.0]
    watch = SilenceWatch(lambda _: {"aa"}, outlook(), lambda: now[0])
    watch.describe_changes({"aa": A, "bb": B})
    now[0] = 9.0
    assert len(watch.describe_changes({"aa": A, "bb": B})) == 1
    assert watch.describe_changes({"aa": A}) == []
    assert watch.silent == set()


def test_a_pause_of_the_driver_itself_is_no_silence() -> None:
    now = [0.0]
    watch = SilenceWatch(lambda _: {"aa"}, outlook(), lambda: now[0])
    watch.describe_changes({"aa": A})
    now[0] = 600.0
    assert watch.describe_changes({"aa": A}) == []


@pytest.mark.parametrize(
    ("name", "machine", "text"),
    [
        ("bb", B, "; training waits until it answers or Ray declares it lost, and"
         " then waits for machines with 2 more CPUs, which 1 worker needs"),
        ("cc", C, "; workers have other snapshots on their own machines"),
        ("dd", C, "; training does not use it"),
        ("ee", HEAD, "; Ray's head is there: if it stays away, training ends, and the same command"
         " with --resume continues from what was saved"),
    ],
    ids=["workers", "copies", "unused", "head"],
)  # fmt: skip
def test_what_is_waited_for_depends_on_what_was_there(
    name: str, machine: Machine, text: str
) -> None:
    assert outlook().while_silent(name, machine, {"aa": A}) == text


def test_a_fixed_number_of_workers_goes_on_where_another_machine_has_room() -> None:
    assert outlook().after_loss("bb", {"aa": A, "cc": C}) == "; training goes on with 2 workers"
    assert outlook().after_loss("cc", {"aa": A}).endswith("snapshots on their own machines")
    assert outlook().after_loss("dd", {"aa": A}) == ""


def test_workers_fit_on_whole_machines() -> None:
    odd = Machine("x", 1, cpus=3.0, gpus=1.0)
    assert workers_that_fit([odd, odd], WorkerGroup(1, 9, 0.0), 2) == 2
    assert workers_that_fit([odd, odd], WorkerGroup(1, 9, 0.25), 1) == 6
    assert workers_that_fit([odd, odd], WorkerGroup(1, 9, 1.0), 1) == 2
    assert workers_that_fit([odd, odd], WorkerGroup(1, 3, 0.0), 1) == 3


@pytest.mark.slow
def test_a_stopped_machine_is_silent_and_a_killed_one_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_watch, "SILENT_SECONDS", 1.0)
    with cluster(1) as machines, ray_session(machines.address, 0) as ray:
        (victim,) = machines.worker_nodes
        raylet = victim.all_processes["raylet"][0].process.pid
        watch = NodeWatch(lambda: live_machines(ray), unused(), Pings())
        with watch:
            assert watch.silence
            wait_until(lambda: bool(watch.silence and watch.silence.answered))
            with stopped(raylet):
                assert "has not answered for" in next_message(watch)
            assert "answers again" in next_message(watch)
            os.kill(raylet, signal.SIGKILL)
            while "is lost" not in next_message(watch):
                pass


def unused() -> Outlook:
    """Return the outlook of a training that has not begun."""
    return Outlook(WorkerGroup(1, 1), 1, list, str)


def next_message(watch: NodeWatch) -> str:
    wait_until(lambda: bool(watch.unread))
    return watch.unread.popleft()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
