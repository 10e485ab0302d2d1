"""Packed states against Python's integers and sets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distvae.models.population import (
    below,
    flip,
    holds,
    keep_best,
    keys,
    pack,
    repeated,
    take,
    unpack,
    words_of,
)

SEED = st.integers(0, 2**31)
LATENT = st.integers(1, 200)
WIDTHS = [7, 64, 200]


def random_states(seed: int, *shape: int, chance: float = 0.5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < chance


def integers(words: Tensor) -> list[int]:
    """Each state as one integer, its first bit the lowest."""
    return [
        int.from_bytes(row.tobytes(), "little")
        for row in words.reshape(-1, words.shape[-1]).numpy()
    ]


def with_repetitions(seed: int, rows: int, count: int, latent: int) -> Tensor:
    """Return (B, C, H) states. Many of them equal another state of the row, or differ from it in
    one bit.
    """
    generator = torch.Generator().manual_seed(seed)
    half = random_states(seed, rows, count // 2, latent, chance=1.5 / latent)
    again = half[:, torch.randint(count // 2, (count - count // 2,), generator=generator)].clone()
    bit = torch.randint(latent, again.shape[:2], generator=generator)
    change = torch.rand(again.shape[:2], generator=generator) < 0.5
    again ^= torch.nn.functional.one_hot(bit, latent).bool() & change[..., None]
    return torch.cat([half, again], 1)


@given(SEED, LATENT)
def test_packing_is_that_of_numpy_and_unpacking_undoes_it(seed: int, latent: int) -> None:
    states = random_states(seed, 3, 4, latent)
    words, padding = pack(states), 64 * words_of(latent) - latent
    padded = np.pad(states.numpy(), [(0, 0), (0, 0), (0, padding)])
    expected = np.packbits(padded, axis=-1, bitorder="little").view(np.int64)
    assert np.array_equal(words.numpy(), expected)
    assert torch.equal(unpack(words, latent), states)


@given(SEED, LATENT)
def test_a_flip_turns_over_the_bit_named_and_no_other(seed: int, latent: int) -> None:
    words = pack(random_states(seed, 4, 3, latent))
    bit = torch.randint(latent, (4, 3), generator=torch.Generator().manual_seed(seed))
    pairs = list(zip(integers(words), bit.flatten().tolist(), strict=True))
    assert integers(flip(words, bit)) == [value ^ (1 << place) for value, place in pairs]
    assert torch.equal(flip(flip(words, bit), bit), words)
    found = holds(words, bit).flatten().tolist()
    assert found == [bool(value >> place & 1) for value, place in pairs]


@given(st.integers(1, 300))
def test_a_mask_holds_the_bits_before_the_cut(latent: int) -> None:
    cuts = torch.arange(latent + 1)
    assert integers(below(cuts, words_of(latent))) == [(1 << cut) - 1 for cut in range(latent + 1)]


@pytest.mark.parametrize("latent", WIDTHS)
def test_keys_tell_states_apart_and_what_is_repeated_is_what_a_set_has_seen(latent: int) -> None:
    words = pack(with_repetitions(latent, 20, 1000, latent))
    pairs = set(zip(integers(words), keys(words).flatten().tolist(), strict=True))
    assert len(pairs) == len({value for value, _ in pairs}) == len({key for _, key in pairs})
    for row, repetition in zip(words, repeated(words), strict=True):
        seen: set[int] = set()
        for value, again in zip(integers(row), repetition.tolist(), strict=True):
            assert again == (value in seen)
            seen.add(value)


@pytest.mark.parametrize("latent", WIDTHS)
def test_the_states_kept_are_the_best_distinct_ones(latent: int) -> None:
    rows, count, kept = 40, 256, 40
    words = pack(with_repetitions(latent, rows, count, latent))
    value = torch.randn(rows, count, generator=torch.Generator().manual_seed(latent))
    best, place = keep_best(words, value, kept)
    assert torch.equal(take(words, place), best)
    for row in range(rows):
        first: dict[int, float] = {}
        for state, worth in zip(integers(words[row]), value[row].tolist(), strict=True):
            first.setdefault(state, worth)
        assert len(first) < count, "nothing is repeated: this shows little"
        expected = sorted(first, key=first.__getitem__, reverse=True)[:kept]
        assert len(set(integers(best[row]))) == kept
        assert set(integers(best[row])) == set(expected)
