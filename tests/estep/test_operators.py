"""The evolutionary operators: who is selected, what children are made of, and how often."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from distvae.config import Evolution
from distvae.estep.search import (
    Selection,
    bernoulli,
    crossed,
    distinct,
    first_states,
    flipped,
    select,
    sparsely_flipped,
)
from distvae.models.population import pack, unpack
from distvae.numerics.noise import Noise

SEED = st.integers(0, 2**31)
ROWS = 20_000
SELECTIONS: list[Selection] = ["fitness", "fitness_batch", "released", "uniform", "best"]


def noise(rows: int, seed: int = 0) -> Noise:
    return Noise(seed, 3, torch.arange(rows))


def random_words(seed: int, rows: int, count: int, latent: int, chance: float = 0.3) -> Tensor:
    return pack(
        torch.rand(rows, count, latent, generator=torch.Generator().manual_seed(seed)) < chance
    )


def agree(counts: Tensor, expected: Tensor) -> bool:
    """Return whether a chi-square test sees no difference from the expected counts, up to their
    scale.
    """
    expected = expected.double()
    return bool(
        stats.chisquare(counts.double(), expected * (counts.sum() / expected.sum())).pvalue > 1e-4
    )


def drawn(log_joint: list[float], count: int, selection: Selection, stage: int = 0) -> Tensor:
    """(ROWS, count) which of the states 0, 1, 2 ... each parent is."""
    states = torch.arange(len(log_joint)).view(1, -1, 1).expand(ROWS, -1, -1)
    return select(
        states, torch.tensor(log_joint).expand(ROWS, -1), count, selection, noise(ROWS), stage
    )[..., 0]


@pytest.mark.parametrize("stage", [0, 2])
def test_fitness_draws_in_proportion_to_the_log_joint_above_the_lowest(stage: int) -> None:
    """The next parent is drawn in proportion among the states that are left."""
    value, weight = [-10.0, -9.0, -7.0, -6.0], [1.0, 3.0, 4.0]
    counts = drawn(value, 1, "fitness", stage).flatten().bincount(minlength=4)
    assert counts[0] <= 1
    assert agree(counts[1:], torch.tensor(weight))
    pairs = drawn(value, 2, "fitness", stage).sort(1).values @ torch.tensor([4, 1])
    expected = {
        (i, j): weight[i - 1] / 8 * weight[j - 1] / (8 - weight[i - 1])
        + weight[j - 1] / 8 * weight[i - 1] / (8 - weight[j - 1])
        for i, j in itertools.combinations((1, 2, 3), 2)
    }
    counts = torch.tensor([int((pairs == 4 * i + j).sum()) for i, j in expected])
    assert agree(counts, torch.tensor(list(expected.values())))


def test_fitness_batch_takes_the_best_but_for_one_time_in_thirty_two() -> None:
    counts = drawn([-10.0, -6.0, -9.0, -7.0], 3, "fitness_batch").flatten().bincount(minlength=4)
    chance = torch.tensor([0.0, 31 / 32 + 4 / 8 / 32, 1 / 8 / 32, 3 / 8 / 32])
    assert counts[0] <= 3
    assert agree(counts[1:], chance[1:])


@pytest.mark.parametrize(("stage", "usual"), [(0, 0), (1, 3), (2, 3)])
def test_released_takes_the_first_of_kept_states_and_the_last_of_children(
    stage: int, usual: int
) -> None:
    counts = drawn([-10.0, -6.0, -9.0, -7.0], 3, "released", stage).flatten().bincount(minlength=4)
    chance = torch.full((4,), 1 / 4 / 32)
    chance[usual] += 31 / 32
    assert agree(counts, chance)


@given(SEED, st.sampled_from(["fitness", "uniform", "best"]))
def test_no_state_is_a_parent_twice_and_best_takes_the_best(
    seed: int, selection: Selection
) -> None:
    value = -1e6 * torch.rand(6, 9, generator=torch.Generator().manual_seed(seed))
    states = torch.arange(9).view(1, -1, 1).expand(6, -1, -1)
    for row in select(states, value, 9, selection, noise(6, seed), 1)[..., 0].tolist():
        assert sorted(row) == list(range(9))
    best = select(states, value, 4, "best", noise(6, seed), 0)[..., 0]
    assert torch.equal(best, value.argsort(1, descending=True)[:, :4])


@pytest.mark.parametrize(("count", "among"), [(1, 5), (3, 5), (4, 4)])
def test_every_set_of_places_and_of_parents_is_as_likely(count: int, among: int) -> None:
    places = distinct(noise(ROWS).bits("child", count), among)
    parents = drawn([-3.0, -500.0, 0.0, -1.0, -2.0][:among], count, "uniform")
    possible = torch.tensor(
        [sum(1 << i for i in chosen) for chosen in itertools.combinations(range(among), count)]
    )
    for chosen in (places, parents):
        counts = (1 << chosen).sum(1).bincount(minlength=1 << among)
        assert counts[possible].sum() == ROWS
        assert len(possible) == 1 or agree(counts[possible], torch.ones(len(possible)))


@given(SEED, st.sampled_from([(5, 3), (64, 4), (65, 9), (130, 9)]), st.integers(0, 2))
def test_siblings_differ_from_their_parent_in_one_bit_each_and_from_each_other(
    seed: int, size: tuple[int, int], stage: int
) -> None:
    latent, siblings = size
    parents = random_words(seed, 7, 4, latent)
    children = flipped(parents, siblings, latent, noise(7, seed), stage)
    change = (
        unpack(children, latent).unflatten(1, (4, siblings)) ^ unpack(parents, latent)[:, :, None]
    )
    assert (change.sum(-1) == 1).all()
    assert (change.sum(2) <= 1).all()


def test_every_bit_is_flipped_as_often() -> None:
    children = flipped(torch.zeros(ROWS, 1, 2, dtype=torch.int64), 2, 70, noise(ROWS), 0)
    assert agree(unpack(children, 70).sum((0, 1)), torch.ones(70))


@pytest.mark.parametrize("active", [2.0, 10.0, 30.0])
def test_sparse_flips_turn_so_many_bits_on_average_and_lead_towards_the_wanted_activity(
    active: float,
) -> None:
    latent, rate = 100, 0.06
    states = torch.arange(latent) < 10
    parents = pack(states).expand(2000, 1, -1)
    pi, config = torch.full((latent,), active / latent), Evolution(rate=rate)
    children = unpack(sparsely_flipped(parents, config, 3, pi, noise(2000), 0), latent)
    flips = (children ^ states).sum(-1).double()
    error = 5 * flips.std() / math.sqrt(flips.numel())
    change = (children.sum(-1) - 10).double().mean()
    if abs(active - 10) <= latent * rate:
        assert abs(flips.mean() - latent * rate) < error
    assert change * (active - 10) > 0 or abs(change) < error


@settings(max_examples=20)
@given(SEED, st.sampled_from([2, 5, 64, 65, 130]), st.integers(2, 5))
def test_children_of_a_pair_are_the_head_of_one_and_the_tail_of_the_other(
    seed: int, latent: int, count: int
) -> None:
    parents = random_words(seed, 3, count, latent, chance=0.5)
    before = unpack(parents, latent)
    after = unpack(crossed(parents, latent, noise(3, seed), 1), latent)
    pairs = list(itertools.combinations(range(count), 2))
    assert after.shape[1] == 2 * len(pairs)
    for row, (k, (i, j)) in itertools.product(range(3), enumerate(pairs)):
        one, other = before[row, i], before[row, j]
        found = torch.cat([after[row, k], after[row, k + len(pairs)]])
        cuts = [torch.cat([one[:c], other[c:], other[:c], one[c:]]) for c in range(1, latent)]
        assert any(torch.equal(cut, found) for cut in cuts)


@pytest.mark.parametrize("latent", [3, 64, 200])
def test_random_states_are_independent_bits_of_chance_one_in_h(latent: int) -> None:
    states = unpack(bernoulli(5, latent, noise(ROWS // 5), "state"), latent).flatten(0, 1)
    assert agree(states.sum(0), torch.ones(latent))
    counts = states.sum(1).bincount(minlength=6)
    chance = torch.from_numpy(stats.binom.pmf(range(latent + 1), latent, 1 / latent))
    top = min(5, latent)
    folded = torch.cat([chance[:top], chance[top:].sum()[None]])
    assert agree(torch.cat([counts[:top], counts[top:].sum()[None]]), folded)


def test_first_states_are_distinct_and_have_each_bit_active_once_in_h() -> None:
    for count, latent in ((8, 3), (64, 6), (20, 8), (64, 64), (30, 300)):
        for row in unpack(first_states(count, latent, 0, torch.arange(30)), latent).tolist():
            assert len({tuple(state) for state in row}) == count
    states = unpack(first_states(20, 500, 0, torch.arange(2000)), 500)
    each = states.sum(1).double()
    apart = (each.mean(0) - each.mean()) / (each.std(0) / math.sqrt(len(each)))
    assert apart.abs().max() < 5
    # 37 % of the draws are the empty state, of which a row keeps one: drawing on, 20 distinct ones
    # have fewer zeros
    assert 1 < states.sum(-1).double().mean() < 2


@pytest.mark.parametrize("selection", SELECTIONS)
def test_how_rows_are_cut_changes_no_draw(selection: Selection) -> None:
    words = random_words(0, 16, 9, 70)
    value = torch.randn(16, 9, generator=torch.Generator().manual_seed(0))

    def born(rows: Tensor) -> Tensor:
        drawn = Noise(0, 3, rows)
        parents = select(words[rows], value[rows], 3, selection, drawn, 1)
        families = [
            flipped(parents, 4, 70, drawn, 1),
            sparsely_flipped(parents, Evolution(), 2, torch.full((70,), 0.04), drawn, 1),
            crossed(parents, 70, drawn, 1),
            bernoulli(3, 70, drawn, "child"),
            first_states(5, 70, 0, rows),
        ]
        return torch.cat(families, 1)

    whole = born(torch.arange(16))
    for cut in (1, 3, 8):
        assert torch.equal(torch.cat([born(rows) for rows in torch.arange(16).split(cut)]), whole)
