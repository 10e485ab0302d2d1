"""A shard: the latest words of every row, whatever order they came in; no row lost between numbers
of shards.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from distvae.estep.shard import Shard, StaleShard
from distvae.estep.store import LocalStore, PopulationFile, empty_populations
from distvae.estep.truncated import first_states
from distvae.files.refusal import Refusal
from distvae.numerics.lanes import Lanes

ROWS, STATES, WIDTH = 23, 4, 3
LANES = Lanes(ROWS, 6)


def drawn(rows: Tensor, seed: int = 0) -> Tensor:
    """Words of every row that depend on it alone."""
    every = torch.randint(
        -(2**63), 2**63 - 1, (ROWS, STATES, WIDTH), generator=torch.Generator().manual_seed(seed)
    )
    return every[rows]


def drawn_later(rows: Tensor) -> Tensor:
    return drawn(rows, 1)


def begun(size: int = 1) -> tuple[list[Shard], list[str]]:
    shards = [Shard(LANES.held(rank, size), STATES, WIDTH) for rank in range(size)]
    return shards, [shard.initialise(drawn) for shard in shards]


def snapshot(
    shards: list[Shard], tokens: list[str], folder: Path | str, generation: str = "1"
) -> list[PopulationFile]:
    return [
        shard.snapshot(folder, generation, token)
        for shard, token in zip(shards, tokens, strict=True)
    ]


def words_in(shards: list[Shard], tokens: list[str]) -> NDArray[np.int64]:
    """The words of all rows, wherever they are."""
    found = np.zeros((ROWS, STATES, WIDTH), np.int64)
    for shard, token in zip(shards, tokens, strict=True):
        own = shard.held.rows()
        found[own] = shard.get(own, token)
    return found


rows_put = st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True)


@given(st.lists(rows_put, max_size=6), st.data())
def test_puts_repeated_and_in_any_order_leave_what_they_leave_once_and_in_order(
    sent: list[list[int]], data: st.DataObject
) -> None:
    """The oracle is a dictionary that hears every put once and in order."""
    known = dict(enumerate(drawn(torch.arange(ROWS)).numpy()))
    puts = [
        (np.array(rows), drawn(torch.tensor(rows), 2 + step).numpy(), step)
        for step, rows in enumerate(sent)
    ]
    for rows, words, _ in puts:
        known |= dict(zip(rows.tolist(), words, strict=True))
    order = data.draw(st.permutations([*puts, *puts]))
    (shard,), (token,) = begun()
    assert sum(shard.put(*put, token) for put in order) >= len(
        known.keys() & {row for rows in sent for row in rows}
    )
    assert not any(shard.put(*put, token) for put in puts)
    assert np.array_equal(words_in([shard], [token]), np.stack([known[row] for row in range(ROWS)]))


@given(st.integers(1, 5))
def test_any_number_of_shards_begins_with_the_states_that_one_process_draws(size: int) -> None:
    def draw(rows: Tensor) -> Tensor:
        return first_states(STATES, 150, 3, rows)

    whole = LocalStore(empty_populations(ROWS, STATES, WIDTH), LANES.held())
    whole.initialise(draw)
    shards = [Shard(LANES.held(rank, size), STATES, WIDTH) for rank in range(size)]
    tokens = [shard.initialise(draw) for shard in shards]
    assert np.array_equal(words_in(shards, tokens), whole.words.numpy())


@settings(max_examples=15)
@given(st.lists(st.integers(1, 7), max_size=2))
def test_no_row_is_lost_when_the_number_of_shards_changes(sizes: list[int]) -> None:
    with TemporaryDirectory() as folder:
        shards, tokens = begun(3)
        for generation, size in enumerate([2, 4, *sizes]):
            files = snapshot(shards, tokens, folder, str(generation))
            shards = [Shard(LANES.held(rank, size), STATES, WIDTH) for rank in range(size)]
            tokens = [shard.restore(folder, files) for shard in shards]
            assert np.array_equal(words_in(shards, tokens), drawn(torch.arange(ROWS)).numpy())


def test_as_many_shards_read_no_file_but_their_own(tmp_path: Path) -> None:
    shards, tokens = begun(3)
    files = snapshot(shards, tokens, tmp_path)
    for other in files[1:]:
        (tmp_path / other["file"]).unlink()
    token = shards[0].restore(tmp_path, files)
    own = shards[0].held.rows()
    assert np.array_equal(shards[0].get(own, token), drawn(torch.from_numpy(own)).numpy())


def test_what_was_meant_for_an_earlier_incarnation_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    (shard,), (old,) = begun()
    files = snapshot([shard], [old], tmp_path)
    rows, words = np.array([3, 1]), drawn_later(torch.tensor([3, 1])).numpy()
    shard.put(rows, words, 5, old)
    token = shard.restore(tmp_path, files)
    for stale in (lambda: shard.put(rows, words, 6, old), lambda: shard.get(rows, old)):
        with pytest.raises(StaleShard):
            stale()
    with pytest.raises(StaleShard):
        shard.snapshot(tmp_path, "2", old)
    assert np.array_equal(words_in([shard], [token]), drawn(torch.arange(ROWS)).numpy())
    assert shard.put(rows, words, 0, token) == 2, "numbers of an earlier incarnation do not count"


def test_a_shard_that_lost_its_memory_gives_nothing(tmp_path: Path) -> None:
    (shard,), (token,) = begun()
    files = snapshot([shard], [token], tmp_path)
    again = Shard(shard.held, STATES, WIDTH)
    for asked in (again.incarnation, lambda: again.get(np.array([0]), token)):
        with pytest.raises(StaleShard):
            asked()
    assert again.restore(tmp_path, files) != token


def test_a_shard_that_could_not_be_restored_gives_nothing(tmp_path: Path) -> None:
    (shard,), (token,) = begun()
    files = snapshot([shard], [token], tmp_path)
    (tmp_path / files[0]["file"]).write_bytes(b"")
    with pytest.raises(Refusal, match=f"{files[0]['file']}: altered or damaged"):
        shard.restore(tmp_path, files)
    with pytest.raises(StaleShard):
        shard.incarnation()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    shards, tokens = begun(3)
    files = snapshot(shards, tokens, tmp_path)
    (tmp_path / files[1]["file"]).unlink()
    with pytest.raises(Refusal, match=f"{files[1]['file']}: missing"):
        Shard(LANES.held(), STATES, WIDTH).restore(tmp_path, files)


@contextmanager
def a_disk_that_takes(count: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("count", [0, 500, 1500])
def test_a_disk_that_fills_leaves_the_earlier_generation_valid_and_nothing_half_written(
    tmp_path: Path, count: int
) -> None:
    (shard,), (token,) = begun()
    files = snapshot([shard], [token], tmp_path)
    shard.put(np.arange(ROWS), drawn_later(torch.arange(ROWS)).numpy(), 1, token)
    for generation in ("1", "2"):
        with (
            a_disk_that_takes(count),
            pytest.raises(Refusal, match=rf"population-{generation}-.*: no room left"),
        ):
            shard.snapshot(tmp_path, generation, token)
    assert [file.name for file in tmp_path.iterdir()] == [files[0]["file"]]
    assert np.array_equal(words_in([shard], [token]), drawn_later(torch.arange(ROWS)).numpy()), (
        "training goes on"
    )
    again = shard.restore(tmp_path, files)
    assert np.array_equal(words_in([shard], [again]), drawn(torch.arange(ROWS)).numpy())


def test_a_folder_may_be_a_uri(tmp_path: Path) -> None:
    shards, tokens = begun(2)
    files = snapshot(shards, tokens, f"file://{tmp_path}/deep/er")
    token = shards[0].restore(tmp_path / "deep" / "er", files)
    assert np.array_equal(shards[0].get(np.array([0]), token), drawn(torch.tensor([0])).numpy())


def test_a_folder_that_is_none_is_refused() -> None:
    (shard,), (token,) = begun()
    with pytest.raises(
        Refusal, match=r"storage: gopher://host/folder: .*a path or a URI"
    ) as refused:
        shard.snapshot("gopher://user:secret@host/folder", "1", token)
    assert "secret" not in str(refused.value)
