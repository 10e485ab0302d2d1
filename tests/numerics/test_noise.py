"""Every draw is a function of (seed, epoch, row), and passes tests of randomness."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distvae.numerics.noise import Noise, _middle, draw_ahead, noise_of_part, order, row_keys

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(-2, 10_000), st.integers(1, 40), st.integers(0, 2**40))
def test_neither_the_cut_of_a_block_nor_the_order_of_rows_changes_a_draw(
    seed: int, epoch: int, cut: int, first: int
) -> None:
    rows = torch.arange(first, first + 48)
    whole = Noise(seed, epoch, rows).normal("slab", 3, 5)
    parts = [Noise(seed, epoch, part).normal("slab", 3, 5) for part in (rows[:cut], rows[cut:])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), Noise(seed, epoch, rows.flip(0)).normal("slab", 3, 5))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"row": torch.arange(1, 1001)}])
def test_every_part_of_the_key_matters(change: dict[str, object]) -> None:
    base: dict[str, object] = {"seed": 0, "epoch": 0, "row": torch.arange(1000)}
    keys = (base, base | change)
    a, b = (Noise(**key).normal("slab", 8) for key in keys)  # type: ignore[arg-type]
    assert (a != b).float().mean() > 0.999
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.05


def test_draws_are_uniform_open_normal_and_independent() -> None:
    noise = Noise(3, 2, torch.arange(20_000))
    u = noise.uniform("spike", 10).double().numpy()
    assert 0 < u.min() < u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    z = noise.normal("slab", 10).double().numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    streams = np.hstack([z, noise.uniform("slab", 1), noise.uniform("spike", 1)])
    for values in (z, streams[:, 10:]):
        correlation = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert np.abs(correlation).max() < 5 / math.sqrt(len(z))
    ends = _middle(torch.tensor([0, 2**23 - 1]))
    assert 0 < float(ends[0]) == 1 - float(ends[1])


@given(SEEDS, st.integers(0, 1000), st.integers(1, 500))
def test_an_epoch_visits_every_row_once_in_its_own_order(seed: int, epoch: int, rows: int) -> None:
    found = order(seed, epoch, rows)
    assert sorted(found) == list(range(rows))
    if rows > 20:
        assert not np.array_equal(found, order(seed, epoch + 1, rows))


def test_equal_rows_have_equal_keys() -> None:
    other_nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    same = torch.tensor([[0.0, 1.0, math.nan], [-0.0, 1.0, math.nan], [0.0, 1.0, math.nan]])
    same[2, 2] = other_nan
    assert len(set(row_keys(same).tolist())) == 1
    assert len(set(row_keys(torch.eye(3)).tolist())) == 3


NOISE = Noise(3, 5, torch.tensor([7, 2**40, 0, 12]))


@given(st.integers(0, 30), st.integers(1, 30))
def test_draws_made_ahead_are_those_of_their_place(parents: int, children: int) -> None:
    ahead = draw_ahead(NOISE, {"parent": parents, "child": children})
    for count in {1, max(1, parents), parents + 3}:
        assert torch.equal(ahead.bits("parent", count), NOISE.bits("parent", count))
        assert torch.equal(ahead.uniform("child", count, 2), NOISE.uniform("child", count, 2))


@given(st.integers(0, 3), st.integers(1, 4))
def test_a_part_has_the_draws_of_its_rows(first: int, count: int) -> None:
    rows = slice(first, first + count)
    alone, part = NOISE.part(rows), noise_of_part(NOISE, rows, {})
    for _ in range(2):
        assert torch.equal(part.bits("slab", 2, 3), alone.bits("slab", 2, 3))
        assert torch.equal(part.uniform("slab", 2, 3), alone.uniform("slab", 2, 3))
        assert torch.equal(part.normal("spike", 6), alone.normal("spike", 6))
