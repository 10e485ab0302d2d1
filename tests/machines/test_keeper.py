"""A copy is what was put, and goes back to each of its last points, whatever was put since."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.machines.copies.keeper import (
    KEPT_POINTS,
    Copy,
    Extent,
    Keeper,
    LostCopy,
    Words,
    WorkerState,
)

EXTENT = Extent(rank=1, size=3, rows=6, states=2, words=1)
Puts = list[tuple[list[int], int]]
puts: st.SearchStrategy[Puts] = st.lists(
    st.tuples(st.lists(st.integers(0, 5), unique=True), st.integers(0, 2**40)), max_size=3
)


def state(number: int, tensors: bool = True) -> WorkerState:
    arrays = {"model.w": np.full(2, float(number))} if tensors else {}
    return WorkerState({"epoch": 0, "batch": number}, {"objective": np.array(number)}, arrays)


def put(copy: Copy | None, whole: Words, changes: Puts) -> None:
    """Make changes to a copy and to an array of all states, which knows nothing of points."""
    for places, value in changes:
        words = value + np.arange(2 * len(places)).reshape(-1, 2, 1)
        whole[places] = words
        if copy:
            copy.put(np.array(places, np.int64), words)


@given(first=puts, blocks=st.lists(puts, min_size=1, max_size=7), data=st.data())
def test_a_copy_goes_back_to_each_of_its_points(
    first: Puts, blocks: list[Puts], data: st.DataObject
) -> None:
    copy, whole = Copy(EXTENT, None), np.zeros((6, 2, 1), np.int64)
    copy.put(slice(0, 6), whole)
    put(copy, whole, first)
    at_points = []
    for number, changes in enumerate(blocks):
        copy.reach((0, number), state(number))
        at_points.append(whole.copy())
        put(copy, whole, changes)
    assert np.array_equal(copy.words, whole)
    kept = list(range(len(blocks)))[-KEPT_POINTS:]
    assert list(copy.points) == [(0, number) for number in kept]
    back = data.draw(st.sampled_from(kept))
    for _ in range(2):
        copy.return_to((0, back))
        assert np.array_equal(copy.words, at_points[back])
        assert list(copy.points) == [(0, number) for number in kept if number <= back]
    # It goes on from there as if nothing had come after.
    put(copy, at_points[back], first)
    assert np.array_equal(copy.words, at_points[back])


def filled(keeper: Keeper, incarnation: str) -> None:
    keeper.begin(incarnation, EXTENT)
    keeper.put(incarnation, slice(0, 6), np.ones((6, 2, 1), np.int64))


def test_a_copy_without_points_is_not_known_and_the_former_one_stays() -> None:
    keeper = Keeper()
    filled(keeper, "a")
    assert keeper.known() == []
    keeper.reach("a", (0, 3), state(3))
    filled(keeper, "b")
    (known,) = keeper.known()
    assert (known.incarnation, known.rank, known.size, known.points) == ("a", 1, 3, [(0, 3)])
    assert known.has_tensors
    keeper.reach("b", (0, 4), state(4, tensors=False))
    assert [(copy.incarnation, copy.has_tensors) for copy in keeper.known()] == [
        ("a", True),
        ("b", False),
    ]
    keeper.keep_only("b")
    assert [copy.incarnation for copy in keeper.known()] == ["b"]
    assert keeper.state("b").position == {"epoch": 0, "batch": 4}


def test_an_adopted_copy_goes_on_and_its_former_name_still_finds_it() -> None:
    keeper = Keeper()
    filled(keeper, "a")
    keeper.reach("a", (0, 0), state(0))
    keeper.adopt("b", "a")
    keeper.put("b", np.array([2]), np.full((1, 2, 1), 7))
    assert [copy.incarnation for copy in keeper.known()] == ["a", "b"]
    assert keeper.read("b", np.array([2])).tolist() == [[[7], [7]]]
    keeper.return_to("a", (0, 0))
    assert keeper.read("b", slice(0, 6)).tolist() == np.ones((6, 2, 1)).tolist()


def test_workers_that_were_left_behind_change_nothing() -> None:
    keeper, words = Keeper(), np.full((1, 2, 1), 7)
    filled(keeper, "a")
    keeper.reach("a", (0, 0), state(0))
    keeper.return_to("a", (0, 0))
    for _ in range(2):
        with pytest.raises(LostCopy, match="belongs to a later one"):
            keeper.put("a", np.array([2]), words)
        with pytest.raises(LostCopy, match="belongs to a later one"):
            keeper.reach("a", (0, 1), state(1))
        keeper.adopt("b", "a")
    keeper.put("b", np.array([2]), words)
    keeper.reach("b", (0, 1), state(1))
    assert keeper.read("b", slice(0, 6)).sum() == 10 + 14


def test_what_is_not_here_is_lost() -> None:
    keeper = Keeper()
    for call in (
        lambda: keeper.put("a", slice(0, 1), np.ones((1, 2, 1), np.int64)),
        lambda: keeper.adopt("b", "a"),
        lambda: keeper.reach("a", (0, 0), state(0)),
        lambda: keeper.read("a", slice(0, 1)),
    ):
        with pytest.raises(LostCopy, match="no copy of incarnation a"):
            call()
    filled(keeper, "a")
    keeper.reach("a", (0, 0), state(0))
    with pytest.raises(LostCopy, match=r"no point \(1, 0\)"):
        keeper.return_to("a", (1, 0))


def test_mapped_states_are_in_a_file_without_a_name(tmp_path: Path) -> None:
    keeper = Keeper(str(tmp_path))
    filled(keeper, "a")
    assert isinstance(keeper.copies["a"].words, np.memmap)
    assert keeper.read("a", slice(0, 6)).sum() == 12
    assert list(tmp_path.iterdir()) == []


SMALL_DISK = """
import subprocess, sys
import numpy as np
from distvae.machines.copies.keeper import Extent, Keeper, LostCopy
mount = f"mount -t tmpfs -o size=8m small {sys.argv[1]}"
if subprocess.run(mount.split(), check=False).returncode:
    sys.exit(77)
keeper = Keeper(sys.argv[1])
halves = [Extent(rank, 2, 640, 1024, 1) for rank in range(2)]
for name, extent in zip("ab", halves):
    try:
        keeper.begin(name, extent)
        keeper.put(name, slice(0, 640), np.ones((640, 1024, 1), np.int64))
        print(name, keeper.read(name, slice(0, 640)).sum())
    except LostCopy as error:
        print(error)
"""
"""A program that keeps two copies of 5 MiB on a disk of 8 MiB."""


def test_a_copy_for_which_the_disk_has_no_room_is_lost_and_the_keeper_lives(tmp_path: Path) -> None:
    """A process that writes into a mapped file is killed if the disk is full."""
    words = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", SMALL_DISK]
    try:
        done = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "unshare" in done.stderr or done.returncode == 77:
        pytest.skip(f"no disk of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"a {640 * 1024}"
    assert second.startswith(f"no room for a copy in {tmp_path}: ")
    assert "No space left on device" in second


def test_a_copy_in_a_folder_that_is_missing_is_lost(tmp_path: Path) -> None:
    with pytest.raises(LostCopy, match=f"no room for a copy in {tmp_path}/missing: "):
        Keeper(str(tmp_path / "missing")).begin("a", EXTENT)
