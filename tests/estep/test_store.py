"""Populations on disk: what comes back is what went in, or a refusal."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distvae import config
from distvae.estep import store
from distvae.estep.store import LocalStore, PopulationFile, empty_populations
from distvae.estep.truncated import RandomSearch
from distvae.files.refusal import Refusal
from distvae.numerics.rows import HeldRows, Lanes
from tests import dense


def words(seed: int = 0) -> Tensor:
    return torch.randint(
        -(2**63), 2**63 - 1, (10, 4, 3), generator=torch.Generator().manual_seed(seed)
    )


def held(rank: int = 0, size: int = 1) -> HeldRows:
    return Lanes(10, 4).held(rank, size)


def whole() -> LocalStore:
    return LocalStore(words(), held())


def empty(rank: int = 0, size: int = 1, mapped: str | None = None) -> LocalStore:
    here = held(rank, size)
    return LocalStore(empty_populations(len(here), 4, 3, mapped), here)


def test_rows_come_back_as_they_were_put() -> None:
    store, rows = whole(), torch.tensor([7, 2, 5])
    store.put(rows, words(1)[:3])
    assert torch.equal(store.get(rows), words(1)[:3])
    others = torch.tensor([0, 1, 3, 4, 6, 8, 9])
    assert torch.equal(store.get(others), words()[others])


def test_the_file_gives_back_every_bit(tmp_path: Path) -> None:
    (facts,) = whole().save(tmp_path, "a")
    again = empty()
    again.load(tmp_path, [facts])
    assert torch.equal(again.words, words())
    assert [file.name for file in tmp_path.iterdir()] == [facts["file"]]


@given(st.integers(1, 4), st.integers(1, 4))
def test_any_number_of_holders_reads_what_any_number_saved(before: int, after: int) -> None:
    every = torch.arange(10)
    with TemporaryDirectory() as folder:
        kept: list[PopulationFile] = []
        for rank in range(before):
            store = empty(rank, before)
            own = torch.from_numpy(store.held.select(every.numpy()))
            store.put(own, words()[own])
            kept += store.save(folder, "a")
        for rank in range(after):
            store = empty(rank, after)
            store.load(folder, kept)
            own = torch.from_numpy(store.held.select(every.numpy()))
            assert torch.equal(store.get(own), words()[own])


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_holders_of_other_lanes_read_what_was_saved(tmp_path: Path, lanes: int) -> None:
    kept = whole().save(tmp_path, "a")
    again = LocalStore(empty_populations(10, 4, 3), Lanes(10, lanes).held())
    again.load(tmp_path, kept)
    assert torch.equal(again.get(torch.arange(10)), words())


def test_rows_that_nobody_saved_are_missed(tmp_path: Path) -> None:
    (facts,) = empty(1, 3).save(tmp_path, "a")
    with pytest.raises(Refusal, match="7 rows are in no file"):
        empty().load(tmp_path, [facts])


def test_populations_of_other_data_are_refused(tmp_path: Path) -> None:
    (facts,) = whole().save(tmp_path, "a")
    other = Lanes(11, 4).held()
    with pytest.raises(Refusal, match="other data"):
        LocalStore(empty_populations(11, 4, 3), other).load(tmp_path, [facts])


def test_the_checksum_tells_contents_apart(tmp_path: Path) -> None:
    one, other, again = (
        LocalStore(words(seed), held()).save(tmp_path, str(i))[0]["sha256"]
        for i, seed in enumerate((0, 1, 0))
    )
    assert one == again != other


@pytest.mark.parametrize("place", [0, 200, -100])
def test_an_altered_file_is_refused(tmp_path: Path, place: int) -> None:
    (facts,) = whole().save(tmp_path, "a")
    path = tmp_path / facts["file"]
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="altered or damaged"):
        empty().load(tmp_path, [facts])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (facts,) = whole().save(tmp_path, "a")
    (tmp_path / facts["file"]).unlink()
    with pytest.raises(Refusal, match="missing"):
        empty().load(tmp_path, [facts])


def test_a_mapped_file_holds_what_memory_would_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mapped = empty(mapped=str(tmp_path))
    mapped.put(torch.arange(10), words())
    assert torch.equal(mapped.get(torch.tensor([3, 1])), words()[[3, 1]])
    assert not list(tmp_path.iterdir())
    (facts,) = mapped.save(tmp_path, "a")
    again = empty(mapped=str(tmp_path))
    again.load(tmp_path, [facts])
    assert torch.equal(again.words, words())
    assert [file.name for file in tmp_path.iterdir()] == [facts["file"]]


def test_a_file_of_many_parts_gives_back_every_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART", 3)
    again = empty()
    again.load(tmp_path, whole().save(tmp_path, "a"))
    assert torch.equal(again.words, words())


def test_populations_that_do_not_fit_are_refused_with_what_they_need() -> None:
    with pytest.raises(
        Refusal, match=r"64 states for 1,000,000,000,000 rows need 4,096,000\.0 GB.*estep.mapped"
    ):
        empty_populations(10**12, 64, 8)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"estep\.mapped"):
        empty_populations(10, 4, 3, str(tmp_path / "nowhere"))


def test_a_disk_without_room_for_the_populations_is_refused_before_it_is_full(
    tmp_path: Path,
) -> None:
    rows = shutil.disk_usage(tmp_path).free // 96 + 10**8
    with pytest.raises(
        Refusal, match=rf"estep\.mapped: {tmp_path}: No space left .* with \S+ GB of room"
    ):
        empty_populations(rows, 4, 3, str(tmp_path))
    assert not list(tmp_path.iterdir())


def refusing(number: int) -> Callable[[int, int, int], None]:
    """A disk that answers a wish for room with an error."""

    def answer(file: int, start: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    return answer


def test_room_that_others_have_taken_is_missed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EDQUOT))
    with pytest.raises(Refusal, match=r"estep\.mapped: .*quota exceeded"):
        empty_populations(10, 4, 3, str(tmp_path))


@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP])
def test_a_system_that_sets_no_room_aside_maps_populations_all_the_same(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refusing(number))
    mapped = empty(mapped=str(tmp_path))
    mapped.put(torch.arange(10), words())
    assert torch.equal(mapped.words, words())


def test_a_trainings_result_is_the_same_with_mapped_populations(tmp_path: Path) -> None:
    batch = dense.rows(20, dense.model(latent=70))
    held, mapped = (
        RandomSearch(config.RandomSearch(states=10, mapped=folder), dense.model(latent=70))
        for folder in (None, str(tmp_path))
    )
    for search in (held, mapped):
        search.prepare([batch.x], Lanes(20, 4).held(), 0)
    assert torch.equal(held.store.get(batch.row), mapped.store.get(batch.row))
