"""Draws made together equal draws made one by one."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.drawn import Part, draw_ahead
from distvae.numerics.noise import Noise

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
    alone = Noise(NOISE.seed, NOISE.epoch, NOISE.row[rows])
    part = Part(NOISE.seed, NOISE.epoch, NOISE.row[rows], NOISE, first, {})
    for _ in range(2):
        assert torch.equal(part.bits("slab", 2, 3), alone.bits("slab", 2, 3))
        assert torch.equal(part.uniform("slab", 2, 3), alone.uniform("slab", 2, 3))
        assert torch.equal(part.normal("spike", 6), alone.normal("spike", 6))
