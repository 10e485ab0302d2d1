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
def test_unpacking_undoes_packing(seed: int, latent: int) -> None:
    states = random_states(seed, 3, 4, latent)
    words = pack(states)
    assert words.shape == (3, 4, words_of(latent))
    assert torch.equal(unpack(words, latent), states)


@given(SEED, LATENT)
def test_packing_is_that_of_numpy(seed: int, latent: int) -> None:
    states = random_states(seed, 5, latent)
    padded = np.zeros((5, 64 * words_of(latent)), dtype=bool)
    padded[:, :latent] = states.numpy()
    assert np.array_equal(
        pack(states).numpy(), np.packbits(padded, axis=-1, bitorder="little").view(np.int64)
    )


@given(SEED, LATENT)
def test_a_flip_turns_over_the_bit_named_and_no_other(seed: int, latent: int) -> None:
    words = pack(random_states(seed, 4, 3, latent))
    bit = torch.randint(latent, (4, 3), generator=torch.Generator().manual_seed(seed))
    expected = [
        value ^ (1 << int(place))
        for value, place in zip(integers(words), bit.flatten(), strict=True)
    ]
    assert integers(flip(words, bit)) == expected
    assert torch.equal(flip(flip(words, bit), bit), words)
    assert torch.equal(holds(flip(words, bit), bit), ~holds(words, bit))
    assert holds(words, bit).flatten().tolist() == [
        bool(value >> int(place) & 1)
        for value, place in zip(integers(words), bit.flatten(), strict=True)
    ]


@given(st.integers(1, 300))
def test_a_mask_holds_the_bits_before_the_cut(latent: int) -> None:
    cuts = torch.arange(latent + 1)
    assert integers(below(cuts, words_of(latent))) == [(1 << cut) - 1 for cut in range(latent + 1)]


@pytest.mark.parametrize("latent", WIDTHS)
def test_states_have_one_key_if_and_only_if_they_are_equal(latent: int) -> None:
    words = pack(with_repetitions(latent, 10, 4000, latent)).flatten(0, 1)
    pairs = set(zip(integers(words), keys(words).tolist(), strict=True))
    assert len(pairs) == len(set(integers(words))) == len(set(keys(words).tolist()))


@pytest.mark.parametrize("latent", WIDTHS)
def test_what_is_repeated_is_what_a_set_has_seen(latent: int) -> None:
    words = pack(with_repetitions(latent, 20, 300, latent))
    for row, repetition in zip(words, repeated(words), strict=True):
        seen: set[int] = set()
        for value, again in zip(integers(row), repetition.tolist(), strict=True):
            assert again == (value in seen)
            seen.add(value)


@pytest.mark.parametrize("latent", WIDTHS)
def test_the_states_kept_are_the_best_distinct_ones(latent: int) -> None:
    rows, count, kept = 160, 256, 40  # 40 960 states
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
