"""The compiled loops against plain torch, which has to do wherever there is no numba."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from distvae.config import Evolution as EvolutionConfig
from distvae.estep.truncated import Evolution
from distvae.interface import Batch
from distvae.models import compiled
from distvae.models.population import (
    States,
    heaviest,
    keep_best,
    pack,
    repeated,
    tabulate,
    unpack,
)
from distvae.models.tvae import TVAE
from distvae.numerics.rows import Lanes
from tests import dense

WIDTHS = [7, 64, 65, 200, 512]
widths = pytest.mark.parametrize("latent", WIDTHS)


@contextmanager
def without_numba() -> Iterator[None]:
    """As on a machine that does not have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        patch.delitem(sys.modules, "distvae.models.kernels", raising=False)
        patch.delitem(sys.modules, "distvae.models.compiling", raising=False)
        patch.delattr("distvae.models.kernels", raising=False)
        compiled._compiled.cache_clear()
        assert compiled.kernels(torch.zeros(1)) is None
        yield
    compiled._compiled.cache_clear()


def both_ways(function: Callable[..., Any], *operands: Any) -> tuple[Any, Any]:
    """Return the results of a function with the compiled loops, and without them."""
    assert compiled.kernels(torch.zeros(1)) is not None
    fast = function(*operands)
    with without_numba():
        return fast, function(*operands)


def some_words(latent: int, rows: int = 200, count: int = 256) -> Tensor:
    """Return (B, C, W) words with many duplicates: 51 200 states."""
    generator = torch.Generator().manual_seed(latent)
    pool = pack(torch.rand(rows * count // 4, latent, generator=generator) < 2 / latent)
    return pool[torch.randint(len(pool), (rows, count), generator=generator)]


@widths
def test_the_same_states_are_repeated_and_kept(latent: int) -> None:
    words = some_words(latent)
    assert torch.equal(*both_ways(repeated, words))
    value = torch.randn(words.shape[:2], generator=torch.Generator().manual_seed(0))
    count = int((~repeated(words)).sum(1).min())
    one, other = both_ways(keep_best, words, value, count)
    assert torch.equal(one[1].sort(1).values, other[1].sort(1).values)


@widths
def test_tables_hold_the_same_states(latent: int) -> None:
    words = some_words(latent)
    (one, place), (other, elsewhere) = both_ways(tabulate, words)
    assert len(one) == len(other)
    assert torch.equal(one[place], words)
    assert torch.equal(other[elsewhere], words)


def test_the_same_states_weigh_something() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(500, (40, 30), generator=generator)
    weight = torch.randn(40, 30, generator=generator).mul(20).softmax(1)
    for one, other in zip(*both_ways(heaviest, place, weight, 500), strict=True):
        assert torch.equal(one, other)
    heavy, moved, kept = heaviest(place, weight, 500)
    assert 0 < len(heavy) < 500
    assert torch.equal(heavy[moved][kept > 0], place[kept > 0])
    assert torch.equal(kept, weight * (weight > 2**-23))
    assert set(heavy.tolist()) == set(place[kept > 0].tolist())


@widths
def test_states_are_unpacked_to_the_same_numbers(latent: int) -> None:
    words = some_words(latent).flatten(0, 1)[:5000]
    expected = unpack(words, latent)
    for dtype in (torch.float32, torch.float64):
        for table in both_ways(States(words, latent).dense, dtype):
            assert table.dtype == dtype
            assert torch.equal(table, expected.to(dtype))
    assert torch.equal(torch.cat([part.words for part in States(words, latent).split(999)]), words)


@widths
@pytest.mark.parametrize("chance", [0.02, 0.5])
def test_linear_layers_add_up_the_same_rows_with_the_same_gradient(
    latent: int, chance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(3000, latent, generator=generator) < chance
    rows, shift, pull = (
        torch.randn(n, 33, generator=generator, dtype=torch.float64) for n in (latent, 1, 3000)
    )
    rows, shift = rows.requires_grad_(), shift[0].clone().requires_grad_()

    def compute() -> tuple[Tensor, ...]:
        states = States(pack(z), latent)
        sums = states.linear(rows, shift)
        return sums, states.mean(place, weight), *torch.autograd.grad(sums, (rows, shift), pull)

    place = torch.randint(3000, (50, 9), generator=generator)
    weight = pull[place, 0].softmax(1)
    mean = torch.einsum("bs,bsh->bh", weight, z[place].double())
    expected = z.double() @ rows + shift, mean, z.double().T @ pull, pull.sum(0)
    for found in both_ways(compute):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(
    "fields", [{}, {"hidden": ()}, {"hidden": (9, 5)}, {"likelihood": "bernoulli"}], ids=str
)
def test_bounds_and_gradients_are_the_same(fields: dict[str, Any], missing: float) -> None:
    model = dense.model(latent=12, dims=20, **fields).double()
    batch = dense.rows(300, model, missing=missing)
    batch = batch._replace(x=batch.x.double())
    words = pack(dense.some_states(300, 40, 12))

    def compute() -> tuple[Tensor, ...]:
        bound = model.objective(batch, model.posterior(batch, words), dense.noise(batch))
        return bound, *torch.autograd.grad(bound.sum(), list(model.parameters()))

    torch.testing.assert_close(*both_ways(compute))


@pytest.mark.parametrize("latent", [60, 300])
def test_a_visit_leaves_the_same_populations(latent: int) -> None:
    """In double precision, where no two values are near enough for rounding to decide: 40 000
    states.
    """
    model = dense.model(latent=latent, hidden=(30,), dims=20).double()
    with torch.no_grad():
        model.pi.fill_(2 / latent)
    batch = dense.rows(1000, model)
    batch = Batch(batch.x.double(), batch.row)

    def kept(model: TVAE) -> list[set[tuple[bool, ...]]]:
        estep = Evolution(EvolutionConfig(states=40, parents=5, children=4, generations=2), model)
        estep.prepare([batch.x], Lanes(len(batch.x), 1).held(), 0)
        for visit in range(3):
            estep.search_block(model, batch, dense.noise(batch, visit))
        return [set(map(tuple, row)) for row in unpack(estep.store.get(batch.row), latent).tolist()]

    one, other = both_ways(kept, model)
    assert one == other


def test_weights_that_are_no_numbers_point_at_a_state_that_is_there() -> None:
    """Else loops write beyond the gradient of none, and the process is aborted before training is
    refused.
    """
    place, weight = torch.tensor([[1, 2]]), torch.full((1, 2), torch.nan)
    for one, other in zip(*both_ways(heaviest, place, weight, 4), strict=True):
        assert torch.equal(one, other)
    heavy, moved, kept = heaviest(place, weight, 4)
    assert len(heavy) > int(moved.max())
    assert not kept.any()
