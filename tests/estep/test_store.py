"""Populations in memory and on disk: what comes back is what went in, or a refusal."""

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
from distvae.estep.store import (
    CompactStore,
    HeldPopulations,
    LocalStore,
    PopulationFile,
    as_words,
    empty_populations,
    new_store,
    packed,
    unpacked,
)
from distvae.estep.truncated import RandomSearch
from distvae.files.refusal import Refusal
from distvae.models.population import pack
from distvae.numerics.rows import HeldRows, Lanes
from tests import dense

STATES, EVERY = 4, torch.arange(10)
KINDS = ["words", "compact", "mapped"]
kinds = pytest.mark.parametrize("kind", KINDS)


def words(share: float = 0.5, latent: int = 192, seed: int = 0) -> Tensor:
    """(10, S, W) states with this share of active bits."""
    generator = torch.Generator().manual_seed(seed)
    return pack(torch.rand(10, STATES, latent, generator=generator) < share)


def held(rank: int = 0, size: int = 1, lanes: int = 4, rows: int = 10) -> HeldRows:
    return Lanes(rows, lanes).held(rank, size)


def empty(kind: str, own: HeldRows, folder: Path | str | None = None) -> HeldPopulations:
    """A store of rows that were never put."""
    if kind == "compact":
        return CompactStore(STATES, 3, own)
    mapped = str(folder) if kind == "mapped" else None
    return LocalStore(empty_populations(len(own), STATES, 3, mapped), own)


def whole() -> HeldPopulations:
    return LocalStore(words(), held())


@given(st.floats(0, 1), st.sampled_from([65, 200, 2500]), st.permutations(range(10)))
def test_every_bit_of_a_compact_store_comes_back(
    share: float, latent: int, order: list[int]
) -> None:
    kept, rows = words(share, latent), torch.tensor(order)
    compact = CompactStore(STATES, kept.shape[2], held())
    assert not compact.get(EVERY).any(), "states without active bits at first"
    compact.put(EVERY, words(0.5, latent, seed=1))
    compact.put(rows, kept)
    assert torch.equal(compact.get(rows[:4]), kept[:4])
    assert torch.equal(compact.get(rows), kept)
    by_words = LocalStore(compact.get(EVERY), held())
    for part in (slice(0, 3), slice(3, 10)):
        content = packed(compact, part)
        assert content == packed(by_words, part)
        assert torch.equal(
            unpacked(content, part.stop - part.start, compact.shape), compact.read(part)
        )


def test_states_with_few_active_bits_take_few_bytes() -> None:
    kept = words(2 / 512, latent=512)
    compact = CompactStore(STATES, 8, held())
    compact.put(EVERY, kept)
    assert sum(map(len, compact.written)) < kept.numel() * kept.itemsize / 8


@kinds
@pytest.mark.parametrize("share", [0.01, 0.9])
def test_any_store_keeps_rows_and_reads_the_file_of_any_other(
    tmp_path: Path, kind: str, share: float
) -> None:
    kept, folder = words(share), tmp_path / "mapped"
    folder.mkdir()
    found = empty(kind, held(), folder)
    found.initialise(lambda rows: kept[rows])
    found.put(torch.tensor([7, 2]), words(seed=1)[:2])
    assert torch.equal(found.get(torch.tensor([7, 2])), words(seed=1)[:2])
    found.put(EVERY, kept)
    files = found.save(tmp_path, "a")
    assert files[0]["sha256"] == LocalStore(kept, held()).save(tmp_path, "b")[0]["sha256"]
    for other in KINDS:
        again = empty(other, held(), folder)
        again.load(tmp_path, files)
        assert torch.equal(again.get(EVERY), kept)
    assert not list(folder.iterdir()), "mapped files have no name"


def test_wide_states_in_memory_are_compact_and_words_on_a_device(tmp_path: Path) -> None:
    found = {
        (latent, mapped): new_store(latent, STATES, held(), mapped)
        for latent in (64, 65)
        for mapped in (None, str(tmp_path))
    }
    compact = [key for key, each in found.items() if isinstance(each, CompactStore)]
    assert compact == [(65, None)]
    found[65, None].put(EVERY, words(latent=65))
    by_words = as_words(found[65, None], torch.device("cpu"))
    assert isinstance(by_words, LocalStore)
    assert torch.equal(by_words.words, words(latent=65))
    assert as_words(by_words, torch.device("cpu")) is by_words


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 4, 8]))
def test_any_number_of_holders_reads_what_any_number_saved(
    before: int, after: int, lanes: int
) -> None:
    with TemporaryDirectory() as folder:
        kept: list[PopulationFile] = []
        for rank in range(before):
            saved = empty("words", held(rank, before))
            own = torch.from_numpy(saved.held.select(EVERY.numpy()))
            saved.put(own, words()[own])
            kept += saved.save(folder, "a")
        for rank in range(after):
            read = empty("words", held(rank, after, lanes))
            read.load(folder, kept)
            own = torch.from_numpy(read.held.select(EVERY.numpy()))
            assert torch.equal(read.get(own), words()[own])


def test_a_file_of_many_parts_gives_back_every_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART", 3)
    again = empty("words", held())
    again.load(tmp_path, whole().save(tmp_path, "a"))
    assert torch.equal(again.get(EVERY), words())


def test_rows_that_nobody_saved_are_missed(tmp_path: Path) -> None:
    files = empty("words", held(1, 3)).save(tmp_path, "a")
    with pytest.raises(Refusal, match="7 rows are in no file"):
        empty("words", held()).load(tmp_path, files)


def test_populations_of_other_data_are_refused(tmp_path: Path) -> None:
    files = whole().save(tmp_path, "a")
    with pytest.raises(Refusal, match="other data"):
        empty("words", held(rows=11)).load(tmp_path, files)


@pytest.mark.parametrize(("place", "match"), [(200, "altered or damaged"), (None, "missing")])
def test_an_altered_or_missing_file_is_refused(
    tmp_path: Path, place: int | None, match: str
) -> None:
    files = whole().save(tmp_path, "a")
    path = tmp_path / files[0]["file"]
    if place is None:
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
    with pytest.raises(Refusal, match=match):
        empty("words", held()).load(tmp_path, files)


def test_populations_that_do_not_fit_are_refused_with_what_they_need(tmp_path: Path) -> None:
    memory = r"64 states for 1,000,000,000,000 rows need 4,096,000\.0 GB.*estep.mapped"
    with pytest.raises(Refusal, match=memory):
        empty_populations(10**12, 64, 8)
    with pytest.raises(Refusal, match=r"estep\.mapped"):
        empty_populations(10, 4, 3, str(tmp_path / "nowhere"))
    rows = shutil.disk_usage(tmp_path).free // 96 + 10**8
    disk = rf"estep\.mapped: {tmp_path}: No space left .* with \S+ GB of room"
    with pytest.raises(Refusal, match=disk):
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
    mapped = empty("mapped", held(), tmp_path)
    mapped.put(EVERY, words())
    assert torch.equal(mapped.get(EVERY), words())


def test_mapped_populations_begin_as_populations_in_memory(tmp_path: Path) -> None:
    batch, model = dense.rows(20, dense.model(latent=70)), dense.model(latent=70)
    found = []
    for folder in (None, str(tmp_path)):
        search = RandomSearch(config.RandomSearch(states=10, mapped=folder), model)
        search.prepare([batch.x], Lanes(20, 4).held(), 0)
        found.append(search.store.get(batch.row))
    assert torch.equal(*found)
