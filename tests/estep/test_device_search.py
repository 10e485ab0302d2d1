"""The search in fixed shapes makes the draws of the CPU's search, and keeps the same states."""

from typing import Any

import pytest
import torch

from distvae.config import Evolution, RandomSearch
from distvae.estep.device_search import DeviceSearch, count_distinct, proposer
from distvae.estep.operators import bernoulli, bernoulli_masked
from distvae.models.population import keys
from distvae.models.truncated import KeptStates
from tests import dense
from tests.estep.test_search import SEARCHES, begun

ROWS = 60


def parts_of_states(kept: KeptStates) -> list[dict[tuple[int, ...], int]]:
    """For each row its states, with what becomes of them in training."""
    assert kept.part is not None
    pairs = zip(kept.words.tolist(), kept.part.tolist(), strict=True)
    return [dict(zip(map(tuple, words), part, strict=True)) for words, part in pairs]


@pytest.mark.parametrize("fields", SEARCHES, ids=str)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_it_keeps_the_states_that_the_cpu_keeps(fields: dict[str, Any], missing: float) -> None:
    model = dense.model(latent=70, hidden=(9,), horizon=2.0)
    batch = dense.rows(ROWS, model, missing=missing)
    estep = begun(fields, model, batch)
    search = DeviceSearch(estep.config, 70, estep.ranked)
    for visit in range(3):
        words, noise = estep.store.get(batch.row), dense.noise(batch, visit)
        found = search(model, batch, words, noise)
        sums = estep.search_block(model, batch, noise)
        kept = estep.store.get(batch.row)
        for one, other in zip(found.words.tolist(), kept.tolist(), strict=True):
            assert set(map(tuple, one)) == set(map(tuple, other))
        assert parts_of_states(found.kept) == parts_of_states(estep.kept_states(batch))
        for name, value in sums.items():
            assert found.sums[name] == value


@pytest.mark.parametrize("fields", SEARCHES, ids=str)
@pytest.mark.parametrize("horizon", [2.0, None])
def test_a_worker_may_have_no_rows_in_a_block(
    fields: dict[str, Any], horizon: float | None
) -> None:
    model = dense.model(latent=70, hidden=(9,), horizon=horizon)
    batch = dense.rows(ROWS, model)
    estep = begun(fields, model, batch)
    nothing = batch.part(slice(0))
    words = estep.store.get(nothing.row)
    search = DeviceSearch(estep.config, 70, estep.ranked)
    found = search(model, nothing, words, dense.noise(nothing))
    assert found.words.shape == words.shape
    assert not any(found.sums.values())


@pytest.mark.parametrize("latent", [1, 6, 57, 64, 70, 128])
def test_draws_of_a_fixed_shape_are_the_same(latent: int) -> None:
    model = dense.model(latent=latent)
    noise = dense.noise(dense.rows(ROWS, model))
    found = bernoulli_masked(20, latent, noise, "child")
    assert torch.equal(found, bernoulli(20, latent, noise, "child"))


def test_distinct_states_are_counted() -> None:
    words = torch.randint(0, 3, (30, 4, 2))
    assert count_distinct(keys(words)) == len(words.flatten(0, 1).unique(dim=0))
    assert count_distinct(keys(words[:0])) == 0


class OwnSearch(Evolution):
    """A search of someone else, whose candidates may be others."""


class OwnDraws(RandomSearch):
    """Draws of someone else."""


def test_a_search_of_someone_else_is_not_replaced_by_ours() -> None:
    for ours, theirs in ((Evolution(), OwnSearch()), (RandomSearch(), OwnDraws())):
        assert proposer(ours, 6) is not None
        assert proposer(theirs, 6) is None
