"""Populations in memory as lists of active bits: every bit comes back, by every way."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distvae.estep.store import CompactStore, LocalStore, as_words, new_store
from distvae.models.population import pack
from distvae.numerics.rows import Lanes

HELD = Lanes(10, 4).held()
STATES = 5


def words(share: float, latent: int = 200, seed: int = 0) -> Tensor:
    """(10, S, W) states with this share of active bits."""
    generator = torch.Generator().manual_seed(seed)
    return pack(torch.rand(10, STATES, latent, generator=generator) < share)


def compact(kept: Tensor) -> CompactStore:
    """Return a store of these rows."""
    store = CompactStore(STATES, kept.shape[2], HELD)
    store.put(torch.arange(10), kept)
    return store


@given(st.floats(0, 1), st.sampled_from([65, 128, 200, 2500]), st.permutations(range(10)))
def test_every_bit_comes_back(share: float, latent: int, order: list[int]) -> None:
    kept, rows = words(share, latent), torch.tensor(order)
    store = compact(words(0.5, latent, seed=1))
    store.put(rows, kept)
    assert torch.equal(store.get(rows[:4]), kept[:4])
    assert torch.equal(store.get(rows), kept)


def test_rows_that_were_never_put_have_no_active_bit() -> None:
    store = CompactStore(STATES, 4, HELD)
    store.put(torch.tensor([3]), words(0.1)[:1])
    others = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert not store.get(others).any()


def test_states_with_few_active_bits_take_few_bytes() -> None:
    kept = words(2 / 512, latent=512)
    written = sum(len(row) for row in compact(kept).written)
    assert written < kept.numel() * kept.itemsize / 8


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_its_file_is_that_of_words_and_either_reads_it(tmp_path: Path, share: float) -> None:
    kept = words(share)
    (one,), (other,) = (
        store.save(tmp_path, "a") for store in (compact(kept), LocalStore(kept.clone(), HELD))
    )
    assert one["sha256"] == other["sha256"]
    again = CompactStore(STATES, kept.shape[2], HELD)
    again.load(tmp_path, [other])
    assert torch.equal(again.get(torch.arange(10)), kept)


def test_first_states_are_those_that_are_drawn() -> None:
    kept, store = words(0.02), CompactStore(STATES, 4, HELD)
    store.initialise(lambda rows: kept[rows])
    assert torch.equal(store.get(torch.arange(10)), kept)


def test_on_a_device_they_are_words() -> None:
    kept = words(0.02)
    store = as_words(compact(kept), torch.device("cpu"))
    assert isinstance(store, LocalStore)
    assert torch.equal(store.words, kept)
    assert as_words(store, torch.device("cpu")) is store


def test_wide_states_in_memory_are_compact(tmp_path: Path) -> None:
    kinds = {
        (latent, mapped): type(new_store(latent, STATES, HELD, mapped))
        for latent in (64, 65)
        for mapped in (None, str(tmp_path))
    }
    assert [key for key, kind in kinds.items() if kind is CompactStore] == [(65, None)]
