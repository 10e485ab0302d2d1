"""Effects of a visit of the E-step on populations, with any operators."""

from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
import torch

from distvae.config import Evolution as EvolutionConfig
from distvae.config import Exact as ExactConfig
from distvae.config import RandomSearch as RandomSearchConfig
from distvae.estep.search import MIN_ROWS, breed, in_parts, select
from distvae.estep.truncated import Evolution, Exact, RandomSearch, Search
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.population import pack, unpack
from distvae.models.tvae import TVAE
from distvae.numerics.rows import Lanes
from distvae.train import checkpoint
from distvae.train.loop import Interrupted
from distvae.train.session import fit
from tests import dense, tiny

KEPT = 10
SEARCHES: list[dict[str, Any]] = [
    {"generations": 2},
    {"generations": 2, "selection": "released"},
    {"crossover": "one_point", "mutation": "sparse_flip", "selection": "fitness"},
    {"draws": 15},
]
"""The compiled loops, states that are kept by rank, the operators in torch, and random states."""
searches = pytest.mark.parametrize("fields", SEARCHES, ids=str)


def search(fields: dict[str, Any], model: TVAE, kept: int = KEPT) -> Search:
    """A search whose parents and children suit a small model."""
    if "draws" in fields:
        return RandomSearch(RandomSearchConfig(states=kept, **fields), model)
    return Evolution(
        EvolutionConfig(**{"states": kept, "parents": 4, "children": 3} | fields), model
    )


def begun(fields: dict[str, Any], model: TVAE, batch: Batch, seed: int = 0) -> Search:
    estep = search(fields, model)
    estep.prepare([batch.x], Lanes(len(batch.x), 1).held(), seed)
    return estep


def test_kept_states_stand_by_rank_where_the_released_code_looks_for_parents() -> None:
    model = dense.model(latent=70, hidden=(9,))
    batch = dense.rows(50, model)
    estep = begun({"selection": "released", "generations": 2}, model, batch)
    estep.search_block(model, batch, dense.noise(batch, 1))
    value = dense.log_joint(model, batch, unpack(estep.store.get(batch.row), 70).double())
    assert (value.diff(dim=1) <= 1e-4).all()


@searches
def test_what_is_kept_is_the_best_of_parents_and_children_and_all_different(
    fields: dict[str, Any],
) -> None:
    model = dense.model(latent=70, hidden=(9,))
    batch = dense.rows(100, model)
    estep = begun(fields, model, batch)
    for visit in range(2):
        words, noise = estep.store.get(batch.row), dense.noise(batch, visit)
        new, _ = estep.candidates(model, batch, words, model.score(batch, words), noise)
        telemetry = estep.search_block(model, batch, noise)
        both = unpack(torch.cat([words, new], 1), 70)
        value = dense.log_joint(model, batch, both.double())
        kept = unpack(estep.store.get(batch.row), 70)
        replaced = 0
        for states, worth, found in zip(both.tolist(), value.tolist(), kept.tolist(), strict=True):
            known = {tuple(state): w for state, w in zip(states, worth, strict=True)}
            chosen = {tuple(state) for state in found}
            assert len(chosen) == KEPT
            least, rest = min(known[state] for state in chosen), known.keys() - chosen
            assert all(known[state] <= least + 1e-4 for state in rest)
            replaced += len(chosen - {tuple(state) for state in states[:KEPT]})
        assert telemetry["substitutions"] == replaced


@searches
def test_neither_threads_nor_the_size_of_a_block_change_a_population(
    fields: dict[str, Any],
) -> None:
    model = dense.model(latent=70, hidden=(9,))
    batch, found = dense.rows(2 * MIN_ROWS, model, missing=0.2), []
    threads = torch.get_num_threads()
    for used, block in ((1, len(batch.row)), (2, len(batch.row)), (1, 50)):
        estep = begun(fields, model, batch)
        torch.set_num_threads(used)
        for visit in range(2):
            for start in range(0, len(batch.row), block):
                rows = batch.part(slice(start, start + block))
                sums = estep.search_block(model, rows, dense.noise(rows, visit))
        torch.set_num_threads(threads)
        words = unpack(estep.store.get(batch.row), 70).tolist()
        found.append((words, sums["substitutions"].item()))
    assert found[0] == found[1]
    for states, same in zip(found[0][0], found[2][0], strict=True):
        assert {tuple(state) for state in states} == {tuple(state) for state in same}


def test_all_states_give_the_likelihood() -> None:
    model = dense.model()
    batch, estep = dense.rows(20, model, missing=0.2), Exact(ExactConfig(), model)
    found = model.bound(batch, estep(model, batch), dense.noise(batch))
    torch.testing.assert_close(found.double(), dense.evidence(model, batch), rtol=1e-5, atol=1e-5)
    assert torch.equal(estep(model, batch).states[0].double(), dense.all_states(model.code_size))


@searches
def test_new_data_find_states_that_grow_better_and_training_data_keep_theirs(
    fields: dict[str, Any],
) -> None:
    model = dense.model(latent=8)
    batch = dense.rows(30, model)
    estep = begun(fields, model, batch)
    kept = estep.store.get(batch.row).clone()
    found = model.bound(batch, estep.infer(model, batch, 20), dense.noise(batch)).double()
    few = model.bound(batch, estep.infer(model, batch, 1), dense.noise(batch)).double()
    evidence = dense.evidence(model, batch)
    assert (few - 1e-4 <= found).all()
    assert (found <= evidence + 1e-4).all()
    assert found.mean() > few.mean()
    assert torch.equal(estep.store.get(batch.row), kept)
    assert torch.equal(pack(estep.infer(model, batch, 0).states), kept)


@searches
def test_a_run_stopped_within_an_epoch_equals_one_never_stopped_bit_for_bit(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    kind = {"kind": "random"} if "draws" in fields else {"parents": 3, "children": 2}
    estep = {"kind": "evolution", "states": 5, "block": 16} | kind | fields
    config = tiny.config(model={"kind": "tvae"}, estep=estep, train={"epochs": 3})
    data, visits = tiny.dataset(), iter(range(1000))

    def metrics(folder: str, **options: Any) -> list[dict[str, float]]:
        """Train, and return the metrics of all epochs except durations."""
        epochs = fit(config, data, tmp_path / folder, **options)
        return [{k: v for k, v in e.metrics().items() if "second" not in k} for e in epochs]

    whole = metrics("whole")
    with pytest.raises(Interrupted):
        metrics("parts", stop=lambda: next(visits) >= 6)
    assert checkpoint.load(tmp_path / "parts", "last")[1]["position"]["batch"] == 2
    rest = metrics("parts", resume=True)
    assert rest == whole[-len(rest) :]
    (one, one_facts), (other, other_facts) = (
        checkpoint.load(tmp_path / run, "last") for run in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one_facts["populations"][0]["sha256"] == other_facts["populations"][0]["sha256"]


def test_populations_that_were_read_take_the_place_of_those_just_searched(tmp_path: Path) -> None:
    model = dense.model()
    batch = dense.rows(20, model)
    estep = begun({}, model, batch)
    saved = estep.populations().get(batch.row).clone()
    files = estep.save(tmp_path, "a")
    estep.search_block(model, batch, dense.noise(batch))
    assert not torch.equal(estep.kept_states(batch).words, saved)
    estep.load(tmp_path, files)
    assert torch.equal(estep.kept_states(batch).words, saved)


def test_compiled_children_are_those_of_the_operators_in_torch() -> None:
    model = dense.model(latent=70, hidden=(9,)).double()
    batch = dense.rows(200, model)
    batch = batch._replace(x=batch.x.double())
    estep, noise = begun({}, model, batch), dense.noise(batch, 3)
    assert isinstance(estep, Evolution)
    words = estep.store.get(batch.row)
    value = model.score(batch, words)
    for stage in range(2):
        compiled = estep._next_generation(model, words, value, noise, stage)
        parents = select(words, value, 4, "fitness_batch", noise, stage)
        assert torch.equal(compiled, breed(parents, estep.config, model.pi, noise, stage))


@searches
def test_new_rows_start_from_states_of_training_rows_that_any_number_of_workers_chooses(
    fields: dict[str, Any],
) -> None:
    """With states of training rows, one search finds better states than ten from random states."""
    model = dense.model(latent=70, hidden=(9,))
    train, new = dense.rows(256, model), dense.rows(40, model, seed=5)
    alone = begun(fields, model, train)
    for epoch in range(8):
        alone.search_block(model, train, dense.noise(train, epoch))
    cold, lanes = search(fields, model), Lanes(256, 4)
    random = model.bound(new, cold.infer(model, new, 10), dense.noise(new)).mean()
    pool = alone.state_dict()["pool"]
    cold.load_state_dict({"pool": pool})
    assert model.bound(new, cold.infer(model, new, 1), dense.noise(new)).mean() > random
    known = {tuple(state) for state in alone.store.get(train.row).flatten(0, 1).tolist()}
    assert {tuple(state) for state in pool.tolist()} <= known
    pools = []
    for size in (1, 2, 4):
        first = search(fields, model)
        first.allocate(lanes.held(0, size))
        own = torch.from_numpy(first.store.held.part(slice(None)))
        first.store.put(own, alone.store.get(own))
        pools.append(first.state_dict()["pool"])
    assert all(torch.equal(pools[0], each) for each in pools)


def test_weights_without_a_pool_are_read_and_a_pool_of_another_model_is_refused() -> None:
    model = dense.model(latent=70, hidden=(9,))
    estep = search({}, model)
    estep.load_state_dict({})
    for pool in (torch.zeros(3, 1).long(), torch.zeros(3, 2), torch.tensor([[0, 1 << 6]])):
        with pytest.raises(Refusal, match=r"estep\.pool"):
            estep.load_state_dict({"pool": pool})


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_parts_are_all_rows_in_order_each_on_a_thread_without_others() -> None:
    """Parts of a part stay on its thread, and failures are raised."""
    many = 2 * MIN_ROWS

    def visit(part: slice) -> tuple[slice, int, int, list[int]]:
        within = in_parts(many, lambda _: get_ident())
        return part, get_ident(), torch.get_num_threads(), within

    for rows in (many, 5 * MIN_ROWS + 3):
        found = in_parts(rows, visit)
        assert [row for part, *_ in found for row in range(part.start, part.stop)] == [*range(rows)]
        assert len(found) == 2
        for _, thread, threads, within in found:
            assert (threads, within) == (1, [thread])
            assert thread != get_ident()
    for rows in (0, 1, many - 1):
        assert in_parts(rows, lambda part: (part, get_ident())) == [(slice(0, rows), get_ident())]

    def fail(part: slice) -> None:
        raise ValueError(f"from {part.start}")

    with pytest.raises(ValueError, match="from 0"):
        in_parts(many, fail)
