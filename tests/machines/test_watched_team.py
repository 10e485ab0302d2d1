"""A wait for other workers is told once, after its time."""

import threading
import time
from collections.abc import Sequence
from typing import TypeVar

import pytest
import ray
import torch
from torch import Tensor

from distvae.machines.workers.watched_team import WatchedTeam
from distvae.machines.workers.worker import _say_if_large
from distvae.train.session import build_trainer
from distvae.train.team import Alone
from tests import tiny

T = TypeVar("T")


class Held(Alone):
    """A team whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        self.let_go.wait()

    def barrier(self) -> None:
        self.let_go.wait()

    def gather(self, value: T, /) -> list[T]:
        self.let_go.wait()
        return [value]


@pytest.mark.parametrize("call", ["sum", "barrier", "gather"])
def test_a_long_wait_is_told_once_and_a_short_one_never(call: str) -> None:
    lines, told = list[str](), threading.Event()

    def say(text: str) -> None:
        lines.append(text)
        told.set()

    team = WatchedTeam(held := Held(), 0.5, say)
    values = {"sum": ([torch.ones(1)],), "gather": (3,)}.get(call, ())
    held.let_go.set()
    getattr(team, call)(*values)
    assert not lines
    held.let_go.clear()
    waiting = threading.Thread(target=getattr(team, call), args=values)
    waiting.start()
    assert told.wait(60)
    time.sleep(2.5)  # time for the thread to look twice more
    held.let_go.set()
    waiting.join()
    team.close()
    assert len(lines) == 1
    assert lines[0].startswith("worker 0 of 1 has waited ")


@pytest.mark.parametrize(("room", "count"), [(10, 1), (10**9, 0)])
def test_parameters_that_the_object_store_does_not_hold_are_told(
    room: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": room})
    lines: list[str] = []
    _say_if_large(build_trainer(tiny.config(), tiny.dataset()), lines.append)
    assert len(lines) == count
    assert all("of Ray's object store, which has 0.0 kB: Ray writes" in line for line in lines)
