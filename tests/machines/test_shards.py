"""The places of snapshots, and the snapshots from which a training continues."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.estep.store import CompactStore, LocalStore, packed, unpacked
from distvae.machines.shards import Known, Moment, ShardActor, last_complete, plan_homes
from distvae.numerics.rows import Lanes
from distvae.train.checkpoint import PositionFacts

POSITION: PositionFacts = {"epoch": 0, "batch": 0, "best": 0.0, "best_epoch": 0, "seconds": 0.0}
machines = st.sampled_from("ABC")


@given(st.lists(machines, min_size=1, max_size=5), st.sets(machines))
def test_the_loss_of_a_machine_leaves_a_snapshot_of_every_worker(
    workers: list[str], others: set[str]
) -> None:
    present = {*workers, *others}
    homes = plan_homes(workers, sorted(present))
    for own, places in zip(workers, homes, strict=True):
        assert places[-1] == own
        assert len(places) == len({*places}) == min(len(present), 2)
    if {*workers} == present:  # machines with as many workers hold as many snapshots
        for one, other in zip(workers, homes, strict=True):
            assert workers.count(one) == sum(other[0] == places[0] for places in homes)


def known(start: str, rank: int, *batches: int) -> list[Known]:
    return [Known(Moment(1, batch, start, 2), rank, 1, POSITION) for batch in batches]


def moment_and_actors(held: dict[str, list[Known]]) -> tuple[Moment | None, list[str]]:
    found = last_complete(held)
    assert [snapshot.rank for _, snapshot in found] == [*range(len(found))]
    return (found[0][1].moment if found else None), [name for name, _ in found]


def test_training_goes_on_from_the_last_moment_that_is_complete_for_all_workers() -> None:
    held = {"b": known("s", 1, 2, 3), "a": known("s", 0, 2, 3, 4)}
    assert moment_and_actors(held) == (Moment(1, 3, "s", 2), ["a", "b"])
    held["b"] += known("t", 0, 5)  # the snapshots of the next start are not complete yet
    assert moment_and_actors(held) == (Moment(1, 3, "s", 2), ["a", "b"])
    held["a"] += known("t", 1, 5)
    assert moment_and_actors(held) == (Moment(1, 5, "t", 2), ["b", "a"])


def test_nothing_is_found_where_a_worker_has_no_snapshot() -> None:
    assert last_complete({}) == []
    assert last_complete({"a": known("s", 0, 1), "b": []}) == []
    assert last_complete({"a": known("s", 0, 1), "b": known("s", 1, 2)}) == []
    assert last_complete({"a": known("s", 0, 1), "b": known("t", 1, 1)}) == []


@pytest.mark.parametrize("is_mapped", [False, True])
def test_an_actor_holds_the_snapshot_that_is_kept_and_the_next(
    is_mapped: bool, tmp_path: Path
) -> None:
    actor, moments = ShardActor(str(tmp_path) if is_mapped else None), []
    for batch in range(4):
        moments.append(Moment(0, batch, "s", 1))
        actor.begin(moments[-1], 0, moments[-2] if batch else None)
        actor.put(moments[-1], 0, b"%d" % batch)
        assert [each.moment for each in actor.known()] == moments[-2:-1]
        actor.finish(moments[-1], 0, POSITION)
    assert [each.moment for each in actor.known()] == moments[-2:]
    assert [actor.read(moment, 0, 0) for moment in moments[-2:]] == [b"2", b"3"]
    assert list(tmp_path.iterdir()) == [], "files are unnamed"
    actor.begin(Moment(0, 9, "t", 2), 1, None)
    actor.forget_others("t")
    assert actor.known() == []
    with pytest.raises(KeyError):
        actor.put(moments[-1], 0, b"of a worker that was left behind")


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.data())
def test_states_arrive_as_they_were_sent(
    rows: int, states: int, width: int, data: st.DataObject
) -> None:
    limits = torch.iinfo(torch.int64)
    some = st.one_of(st.integers(0, 9), st.integers(limits.min, limits.max))
    size = rows * states * width
    values = data.draw(st.lists(some, min_size=size, max_size=size))
    words = torch.tensor(values, dtype=torch.int64).view(rows, states, width)
    held = Lanes(rows, 1).held()
    compact = CompactStore(states, width, held)
    compact.write(slice(None), words)
    part = slice(data.draw(st.integers(0, rows - 1)), rows)
    stores = (LocalStore(words, held), compact) if width > 1 else (LocalStore(words, held),)
    for store in stores:
        sent = packed(store, part)
        assert torch.equal(unpacked(sent, rows - part.start, store.shape), words[part])
