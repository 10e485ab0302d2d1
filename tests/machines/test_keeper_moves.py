"""A keeper is started on a machine that joins, if a worker has its keeper beside it."""

import time

import pytest

from distvae.machines.copies.keeper_moves import KeeperMoves
from distvae.machines.copies.keepers import KeeperRoll, ask_all
from distvae.machines.session import ray_session
from distvae.train.documents import Event
from distvae.train.events import describe_event
from tests.ray_cluster import cluster


def event(machines: list[str], copies: list[str | None], moved: int = 0) -> Event:
    return Event(
        epoch=1,
        batch=0,
        workers=len(machines),
        leaving=0,
        time=0,
        rows=[],
        bytes=[],
        machines=machines,
        copies=copies,
        moved=moved,
    )


def test_events_say_where_copies_are() -> None:
    one = event(["10.0.0.1-a", "10.0.0.1-a"], ["10.0.0.1-a", "10.0.0.1-a"])
    assert describe_event(one, 1) == "2 workers, from epoch 1"
    two = event(["10.0.0.1-a", "10.0.0.2-b"], ["10.0.0.2-b", "10.0.0.2-b"])
    place = " on 2 machines (copies: 1 beside the worker)"
    assert describe_event(two, 1) == f"2 workers{place}, from epoch 1"
    place = " on 2 machines (copies: none beside its worker)"
    moved = event(["10.0.0.1-a"], ["10.0.0.2-b"], 1)
    assert describe_event(moved, 1) == f"new copies for 1 worker{place}"
    place = " on 2 machines (copies: one beside each worker, one elsewhere)"
    moved["second_copies"] = ["10.0.0.1-a"]
    assert describe_event(moved, 1) == f"new copies for 1 worker{place}"


@pytest.mark.long
def test_a_keeper_is_started_on_a_machine_that_joins() -> None:
    with cluster(1) as machines, ray_session(machines.address, 0) as ray:
        events: list[Event] = []
        moves, roll = KeeperMoves(ray, "owner", None, lambda: events), KeeperRoll("owner")
        moves.launch(1)

        def places() -> list[str]:
            return ask_all([roll.handle(name) for name in roll.names()], "machine", "")

        (beside,) = places()
        events.append(event([beside], [beside]))
        machines.add_node(num_cpus=1)
        deadline = time.monotonic() + 100
        while set(places()) <= {beside, ""}:
            assert time.monotonic() < deadline
            moves.look()
        count = len(roll.names())
        moves.look()
        assert len(roll.names()) == count, "the one beside the worker has the second copy"
