"""The TVAE's posterior, bound, gradient and closed forms, against the dense model and full
enumeration.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from distvae.estep import assemble
from distvae.interface import Batch, expect, prepare
from distvae.models.population import pack
from distvae.models.tvae import TVAE
from distvae.numerics.noise import VALIDATION, Noise
from distvae.numerics.rows import Lanes
from distvae.train.step import assess
from tests import dense, tiny

ROWS, KEPT = 40, 9
missing = pytest.mark.parametrize("missing", [0.0, 0.3])


@pytest.fixture(params=dense.VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> TVAE:
    return dense.model(**request.param)


def some(model: TVAE, missing: float = 0.0, rows: int = ROWS) -> tuple[Batch, Tensor]:
    """Some rows, and states for them."""
    z = dense.some_states(rows, KEPT, model.code_size)
    return dense.rows(rows, model, missing=missing), z


def bound(model: TVAE, batch: Batch, z: Tensor) -> Tensor:
    return model.bound(batch, model.posterior(batch, pack(z)), dense.noise(batch))


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
def test_closed_forms_maximise_the_expected_log_joint_and_never_lower_the_bound(
    model: TVAE, missing: float
) -> None:
    batch, z = some(model, missing)
    before, weight = bound(model, batch, z), dense.log_joint(model, batch, z).softmax(1).detach()
    with torch.no_grad():
        model.maximise(model.statistics(batch, model.posterior(batch, pack(z)), dense.noise(batch)))
    pi = model.pi.double().clamp(1e-9, 1 - 1e-9).requires_grad_()
    free = [pi]
    if model.config.likelihood == "gaussian":
        free.append(dense.variance(model).double().requires_grad_())

    def expected(*moved: Tensor) -> Tensor:
        return (weight * dense.log_joint(model, batch, z, *moved)).sum()

    at_the_top, widths = expected(*free), (pi * (1 - pi), torch.ones(()))
    slopes = torch.autograd.grad(at_the_top, free)
    for moved, (slope, width) in enumerate(zip(slopes, widths, strict=False)):
        assert (slope * width).abs().max() < 1e-3
        for scale in (0.9, 1.1):
            values = list(free)
            values[moved] = (free[moved] * scale).clamp(max=1 - 1e-9)
            assert expected(*values) <= at_the_top
    assert bound(model, batch, z).sum() >= before.sum() - 1e-3


def test_a_latent_that_is_active_in_one_row_is_not_dead() -> None:
    for rows in (3, 60_025, 1_000_003):
        model, hidden = dense.model(latent=4), torch.tensor([0.0, 0.5, 1.0, 2.0])
        counts = torch.zeros(5, dtype=torch.float64)
        counts[1] = rows
        sums = {"active": hidden.double(), "density": counts[0], "values": counts[1]}
        model.maximise(sums | {"counts": counts})
        assert model.telemetry({"counts": counts}, rows)["dead"] == 2


def test_expectations_are_weighted_sums_over_the_kept_states(model: TVAE) -> None:
    batch, z = some(model)
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
    assert torch.equal(q.active_code.double(), z[torch.arange(ROWS), joint.argmax(1)])
    assert torch.equal(q.states.double(), z)


def test_draws_come_as_often_as_their_weights_say() -> None:
    from scipy import stats

    model = dense.model()
    batch, z = some(model, rows=1)
    q, draws = model.posterior(batch, pack(z)), 20_000
    points, weight = q.points(draws, dense.noise(batch))
    assert torch.equal(weight, torch.full((1, draws), 1 / draws))
    counts = (points[0][:, None] == z[0].float()).all(-1).sum(0)
    assert counts.sum() == draws
    expected = draws * dense.log_joint(model, batch, z)[0].softmax(0).detach()
    often = expected > 5
    rest = [counts[~often].sum(), expected[~often].sum()]
    assert stats.chisquare([*counts[often], rest[0]], [*expected[often], rest[1]]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("filled", "estep"),
    [("masked", {"kind": "exact"}), ("completed", {"kind": "evolution", "states": 8})],
)
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
    batch, z = some(model)
    prior = distributions.Bernoulli(model.pi.double()).log_prob(z).sum(-1)
    expected = prior - dense.log_joint(model, batch, z).log_softmax(1)
    every = dense.all_states(model.code_size).expand(ROWS, -1, -1)
    found = model.posterior(batch, pack(z)).log_ratio(every.float()).double()
    same = (every[:, :, None] == z[:, None]).all(-1)
    kept = same.any(-1)
    at_kept = (expected[:, None] * same).sum(-1)[kept]
    torch.testing.assert_close(found[kept], at_kept, rtol=1e-4, atol=1e-4)
    assert (found[~kept] == -torch.inf).all()
