"""The TVAE's posterior, bound, gradient and closed forms, against the dense model and full
enumeration.
"""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from distvae.estep import assemble
from distvae.interface import Batch, expect, prepare
from distvae.models.population import pack
from distvae.models.tvae import TVAE
from distvae.numerics.noise import VALIDATION, Noise
from distvae.numerics.rows import Lanes
from distvae.train.step import assess
from tests import dense, tiny

SEED = st.integers(0, 2**31)
ROWS, KEPT = 40, 9
missing = pytest.mark.parametrize("missing", [0.0, 0.3])


@pytest.fixture(params=dense.VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> TVAE:
    return dense.model(**request.param)


def bound(model: TVAE, batch: Batch, z: Tensor) -> Tensor:
    return model.bound(batch, model.posterior(batch, pack(z)), dense.noise(batch))


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Equal to single precision of the largest value of each tensor."""
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other.double()).abs().max() <= 1e-5 * other.abs().max()


def gradients(model: TVAE, value: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.sum(), list(model.parameters()))


@missing
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_joints_are_those_of_the_dense_model(
    model: TVAE, missing: float, dtype: torch.dtype
) -> None:
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )
    expected = dense.log_joint(model, batch, z)
    model, batch = model.to(dtype), batch._replace(x=batch.x.to(dtype))
    rtol, atol = {torch.float32: (1e-5, 1e-4), torch.float64: (1e-9, 1e-9)}[dtype]
    for found in (model.posterior(batch, pack(z)).log_joint, model.score(batch, pack(z))):
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


def test_log_joints_stay_exact_far_from_zero() -> None:
    """Pixels of 0 to 255 explained to a few grey levels, as in a picture without noise."""
    model = dense.model(dims=144, variance=None)
    z = dense.some_states(ROWS, KEPT, model.code_size)
    with torch.no_grad():
        dense.layers(model)[-1][1].add_(200)
    x = dense.decode(model, z)[:, 0].float() + torch.randn(ROWS, 144)
    batch = Batch(x.detach(), torch.arange(ROWS))
    found = model.posterior(batch, pack(z)).log_joint.double()
    assert (found - dense.log_joint(model, batch, z)).abs().max() < 0.02


@missing
def test_the_gradient_is_that_of_the_dense_bound(model: TVAE, missing: float) -> None:
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )
    q = model.posterior(batch, pack(z))
    found = gradients(model, model.objective(batch, q, dense.noise(batch)))
    expected = gradients(model, dense.log_joint(model, batch, z).logsumexp(1))
    assert_near(found, expected)


@missing
def test_with_all_states_bound_and_gradient_are_those_of_the_likelihood(
    model: TVAE, missing: float
) -> None:
    batch = dense.rows(8, model, missing=missing)
    z = dense.all_states(model.code_size).expand(8, -1, -1)
    found = model.objective(batch, model.posterior(batch, pack(z)), dense.noise(batch))
    expected = dense.evidence(model, batch)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert_near(gradients(model, found), gradients(model, expected))


@given(SEED, st.integers(1, 64))
def test_the_bound_never_exceeds_the_likelihood(seed: int, kept: int) -> None:
    model = dense.model(seed)
    batch, z = dense.rows(8, model, seed), dense.some_states(8, kept, model.code_size, seed)
    assert (bound(model, batch, z).double() <= dense.evidence(model, batch) + 1e-4).all()


def test_what_is_missing_is_marginalised(model: TVAE) -> None:
    """With the missing values cut off data and decoder, the same densities are left."""
    seen = torch.arange(7) % 3 != 0
    z = dense.some_states(ROWS, KEPT, model.code_size)
    whole = dense.rows(ROWS, model)
    batch = Batch(whole.x, whole.row, seen.expand(ROWS, -1))
    found = bound(model, batch, z)
    with torch.no_grad():
        *_, last = (layer for layer in model.decoder if list(layer.parameters()))
        for parameter in last.parameters():
            parameter.data = parameter.index_select(parameter.shape.index(7), seen.nonzero()[:, 0])
    torch.testing.assert_close(
        found, bound(model, Batch(whole.x[:, seen], whole.row), z), rtol=1e-5, atol=1e-4
    )


@missing
def test_two_halves_add_up_to_the_whole(model: TVAE, missing: float) -> None:
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )

    def totals(rows: slice) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
        part = dense.part(batch, rows)
        q = model.posterior(part, pack(z[rows]))
        objective = model.objective(part, q, dense.noise(part))
        found = gradients(model, objective)
        with torch.no_grad():
            return (
                objective,
                found,
                model.statistics(part, model.posterior(part, pack(z[rows])), dense.noise(part)),
            )

    whole, one, other = (totals(rows) for rows in (slice(None), slice(0, 13), slice(13, None)))
    torch.testing.assert_close(whole[0], torch.cat([one[0], other[0]]), rtol=1e-4, atol=1e-4)
    assert_near(tuple(a + b for a, b in zip(one[1], other[1], strict=True)), whole[1])
    sums = {name: one[2][name] + other[2][name] for name in whole[2]}
    torch.testing.assert_close(whole[2], sums, rtol=1e-4, atol=1e-4)


@missing
def test_closed_forms_maximise_the_expected_log_joint_and_never_lower_the_bound(
    model: TVAE, missing: float
) -> None:
    batch, z = (
        dense.rows(ROWS, model, missing=missing),
        dense.some_states(ROWS, KEPT, model.code_size),
    )
    before, weight = bound(model, batch, z), dense.log_joint(model, batch, z).softmax(1).detach()
    with torch.no_grad():
        model.maximise(model.statistics(batch, model.posterior(batch, pack(z)), dense.noise(batch)))
    pi = model.pi.double().clamp(1e-9, 1 - 1e-9).requires_grad_()
    free = [pi]
    if model.config.likelihood == "gaussian":
        free.append(dense.variance(model).double().requires_grad_())

    def expected(*moved: Tensor) -> Tensor:
        return (weight * dense.log_joint(model, batch, z, *moved)).sum()

    at_the_top = expected(*free)
    for slope, width in zip(
        torch.autograd.grad(at_the_top, free), (pi * (1 - pi), torch.ones(())), strict=False
    ):
        assert (slope * width).abs().max() < 1e-3
    for scale in (0.9, 1.1):
        for moved in range(len(free)):
            values = [
                (v * scale).clamp(max=1 - 1e-9) if i == moved else v for i, v in enumerate(free)
            ]
            assert expected(*values) <= at_the_top
    assert bound(model, batch, z).sum() >= before.sum() - 1e-3


@pytest.mark.parametrize("rows", [3, 60_025, 1_000_003])
def test_a_latent_that_is_active_in_one_row_is_not_dead(rows: int) -> None:
    model, hidden = dense.model(latent=4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    counts = torch.zeros(5, dtype=torch.float64)
    counts[1] = rows
    model.maximise(
        {"active": hidden.double(), "counts": counts, "density": counts[0], "values": counts[1]}
    )
    assert model.telemetry({"counts": counts}, rows)["dead"] == 2


def test_expectations_are_weighted_sums_over_the_kept_states(model: TVAE) -> None:
    batch, z = dense.rows(ROWS, model), dense.some_states(ROWS, KEPT, model.code_size)
    q = model.posterior(batch, pack(z))
    joint = dense.log_joint(model, batch, z)
    weight = joint.softmax(1)
    torch.testing.assert_close(
        q.code.double(), (weight[..., None] * z).sum(1), rtol=1e-4, atol=1e-5
    )
    means = (weight[..., None] * dense.decode(model, z)).sum(1)
    if model.config.likelihood == "gaussian":
        torch.testing.assert_close(expect(q, model.decode).double(), means, rtol=1e-4, atol=1e-5)
    decoded = torch.einsum("bs,bsd->bd", q.weight, model.decode(q.states))
    torch.testing.assert_close(expect(q, model.decode), decoded, rtol=1e-4, atol=1e-5)
    again = expect(q, lambda state: model.decode(state))  # a function of which nothing is known
    torch.testing.assert_close(again, decoded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expect(q, lambda state: state), q.code, rtol=1e-4, atol=1e-5)
    active = expect(q, lambda state: state.sum(-1))
    torch.testing.assert_close(active, q.code.sum(1), rtol=1e-4, atol=1e-5)
    assert torch.equal(q.best.double(), z[torch.arange(ROWS), joint.argmax(1)])
    assert torch.equal(q.states.double(), z)


def test_draws_come_as_often_as_their_weights_say() -> None:
    from scipy import stats

    model = dense.model()
    batch, z = dense.rows(1, model), dense.some_states(1, KEPT, model.code_size)
    q, draws = model.posterior(batch, pack(z)), 20_000
    points, weight = q.points(draws, dense.noise(batch))
    assert torch.equal(weight, torch.full((1, draws), 1 / draws))
    counts = (points[0][:, None] == z[0].float()).all(-1).sum(0)
    assert counts.sum() == draws
    expected = draws * dense.log_joint(model, batch, z)[0].softmax(0).detach()
    often = expected > 5
    rest = [counts[~often].sum(), expected[~often].sum()]
    assert stats.chisquare([*counts[often], rest[0]], [*expected[often], rest[1]]).pvalue > 1e-4


@pytest.mark.parametrize("filled", ["masked", "completed"])
@pytest.mark.parametrize("estep", [{"kind": "exact"}, {"kind": "evolution", "states": 8}])
def test_a_worker_without_rows_to_validate_adds_nothing(filled: str, estep: dict[str, Any]) -> None:
    sections = {"model": {"kind": "tvae", "latent": 4, "missing": filled}, "estep": estep}
    model, search = assemble(tiny.config(**sections), tiny.DIMS)
    prepare(search, [], Lanes(10, 1).held(), 0)
    none = torch.arange(0)
    batch = Batch(torch.zeros(0, tiny.DIMS), none, torch.ones(0, tiny.DIMS, dtype=torch.bool))
    with torch.no_grad():
        sums = assess(model, search.infer(model, batch, 0), batch, Noise(0, VALIDATION, none))
    assert not any(value.any() for value in sums.values())


def test_a_bit_that_was_always_or_never_active_is_improbable_otherwise_and_not_impossible() -> None:
    model = dense.model()
    model.pi[:2] = torch.tensor([0.0, 1.0])
    batch, z = dense.rows(1, model), dense.all_states(model.code_size)
    expected = distributions.Bernoulli(model.pi.double().clamp(1e-5, 1 - 1e-5)).log_prob(z).sum(-1)
    found = model.posterior(batch, pack(z)[None]).log_prior[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_the_log_ratio_is_that_of_prior_and_weight_and_minus_infinity_beyond_the_kept() -> None:
    model = dense.model()
    batch, z = dense.rows(ROWS, model), dense.some_states(ROWS, KEPT, model.code_size)
    prior = distributions.Bernoulli(model.pi.double()).log_prob(z).sum(-1)
    expected = prior - dense.log_joint(model, batch, z).log_softmax(1)
    every = dense.all_states(model.code_size).expand(ROWS, -1, -1)
    found = model.posterior(batch, pack(z)).log_ratio(every.float()).double()
    same = (every[:, :, None] == z[:, None]).all(-1)
    kept = same.any(-1)
    at_kept = (expected[:, None] * same).sum(-1)[kept]
    torch.testing.assert_close(found[kept], at_kept, rtol=1e-4, atol=1e-4)
    assert (found[~kept] == -torch.inf).all()
