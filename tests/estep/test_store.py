"""Populations in memory and on disk: what comes back is what went in, or a refusal."""

import errno
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
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
    small, kept = CompactStore(STATES, 8, held()), words(2 / 512, latent=512)
    small.put(EVERY, kept)
    assert sum(map(len, small.written)) < kept.numel() * kept.itemsize / 8, "few active bits"
    found = {
        (latent, mapped): new_store(latent, STATES, held(), mapped)
        for latent in (64, 65)
        for mapped in (None, str(tmp_path))
    }
    compact = [key for key, each in found.items() if isinstance(each, CompactStore)]
    assert compact == [(65, None)]
    found[65, None].put(EVERY, words(latent=65))
    cpu, needed = torch.device("cpu"), 8 * 10 * STATES * 2
    by_words = as_words(found[65, None], cpu, 2 * needed)
    assert isinstance(by_words, LocalStore)
    assert torch.equal(by_words.words, words(latent=65))
    assert as_words(by_words, cpu, 2 * needed) is by_words
    assert as_words(found[65, None], cpu, 2 * needed - 1) is found[65, None], "kept packed"


def test_a_file_of_few_active_bits_is_small_and_files_of_words_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = words(2 / 512, latent=512)
    wide = LocalStore(kept, held())
    monkeypatch.setattr(store, "may_be_compact", lambda width: False)  # as version 0.2.0 wrote
    of_words = wide.save(tmp_path, "a")
    monkeypatch.undo()
    of_lists = wide.save(tmp_path, "b")
    assert of_lists[0]["bytes"] < of_words[0]["bytes"] / 2
    for files in (of_words, of_lists):
        again = CompactStore(STATES, 8, held())
        again.load(tmp_path, files)
        assert torch.equal(again.get(EVERY), kept)


@given(st.binary(max_size=200), st.integers(0, 200), st.sampled_from([65, 200]))
def test_bytes_that_are_no_states_are_refused_and_never_read_beyond_their_end(
    wrong: bytes, cut: int, latent: int
) -> None:
    kept = LocalStore(words(0.1, latent), held())
    content = packed(kept, slice(0, 10))
    for damaged in (content[: min(cut, len(content) - 1)], content + b"\0", wrong):
        try:
            states = unpacked(damaged, 10, kept.shape)
        except Refusal:
            continue
        assert damaged == wrong
        assert states.shape == kept.shape
    empty_row = pa.array([None], pa.large_binary())
    with pytest.raises(Refusal, match=r"a file: .*; another checkpoint expected"):
        store._words_in("a file", empty_row, (1, *kept.shape[1:]))
    far = bytes([1, 255, 255])  # bit 65 535
    with pytest.raises(Refusal, match="bits that no state has"):
        unpacked(far + content[3:], 10, kept.shape)


@settings(max_examples=20)
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


def test_a_file_of_many_parts_gives_back_every_bit_unless_it_is_another_or_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART", 3)
    files = whole().save(tmp_path, "a")
    again = empty("words", held())
    again.load(tmp_path, files)
    assert torch.equal(again.get(EVERY), words())
    with pytest.raises(Refusal, match="7 rows are in no file"):
        again.load(tmp_path, empty("words", held(1, 3)).save(tmp_path, "a"))
    with pytest.raises(Refusal, match="other data"):
        empty("words", held(rows=11)).load(tmp_path, files)
    path = tmp_path / files[0]["file"]
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="altered or damaged"):
        again.load(tmp_path, files)
    path.unlink()
    with pytest.raises(Refusal, match="missing"):
        again.load(tmp_path, files)


def test_a_bit_that_no_latent_has_is_refused(tmp_path: Path) -> None:
    files, again = whole().save(tmp_path, "a"), empty("words", held())
    again.latent = 190
    with pytest.raises(Refusal, match="active bits beyond 190 latents"):
        again.load(tmp_path, files)


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


@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP, errno.EDQUOT])
def test_a_system_that_sets_no_room_aside_maps_populations_all_the_same_unless_there_is_none(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, start: int, length: int) -> None:
        assert number
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    if number is None:
        monkeypatch.delattr(os, "posix_fallocate")
    if number == errno.EDQUOT:
        with pytest.raises(Refusal, match=r"estep\.mapped: .*quota exceeded"):
            empty_populations(10, 4, 3, str(tmp_path))
    else:
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
